"""A warning when training collapses to empty heatmaps."""

import math

from mmengine.runner import Runner

# of heatmaps: mean peaks between which a training is sound
MIN_PEAK, MAX_PEAK = 0.05, 10.0
# mean accuracy of a training batch, 0 to 1, and iterations in which it must rise while peaks are low
MIN_ACC, PATIENCE = 0.01, 500


class CollapseWarning:
    """Warn when the predicted heatmaps show that nothing is learned.

    Over 99 % of a target heatmap is zero, so a network that predicts nothing has a small, steady loss that
    looks like success. Targets peak at 1. ``heatmap_peak`` of :class:`MultiStageHeatmapHead` does not tell
    by itself: on photographs it falls to 0.04 in a good training too, before it rises, but ``acc_pose`` rises
    meanwhile. A training has collapsed if ``heatmap_peak`` is below ``MIN_PEAK`` and ``acc_pose``

    - is below ``MIN_ACC``, about that of random positions, as with equal heatmaps everywhere, or
    - has not risen in ``PATIENCE`` iterations, as with the same heatmaps for all images.

    It has diverged if ``heatmap_peak`` is NaN or its size above ``MAX_PEAK``.

    Args:
        interval: Iterations before the first check and between two, and over which means are taken; at most
            50 of them. Defaults to 100.
        repeat: Iterations before a warning is repeated. Defaults to 1000.
    """

    def __init__(self, interval: int = 100, repeat: int = 1000):
        self.interval = interval
        self.repeat = repeat
        self.warned = -math.inf

    def check(self, runner: Runner) -> None:
        """Call it after every iteration."""
        scalars = runner.message_hub.log_scalars
        if (
            (runner.iter + 1) % self.interval
            or runner.iter - self.warned < self.repeat
            or 'train/heatmap_peak' not in scalars
        ):
            return
        window = min(self.interval, 50)
        peak = scalars['train/heatmap_peak'].mean(window)
        if not abs(peak) <= MAX_PEAK:
            what = 'has diverged. Stop it, and try a lower learning rate or a longer warm-up.'
        elif peak < MIN_PEAK and not self._learns(scalars.get('train/acc_pose'), window):
            what = (
                'has probably collapsed to empty heatmaps, however small the loss. Stop it, check the '
                'training images and keypoints, and try a lower learning rate, a longer warm-up, or a larger '
                'sigma of the codec.'
            )
        else:
            return
        self.warned = runner.iter
        runner.logger.warning(
            f'The predicted heatmaps peak at {peak:.4g} after {runner.iter + 1} iterations, and the targets '
            f'at 1: training {what}',
            extra=dict(kind='divergence'),
        )

    def _learns(self, accuracy, window: int) -> bool:
        """Whether the accuracy, a ``HistoryBuffer``, is above chance and rises, or may still do so."""
        if accuracy is None or accuracy.mean(window) < MIN_ACC:
            return False
        values, half = accuracy.data[0], PATIENCE // 2
        if len(values) < 2 * half:
            return True
        return values[-half:].mean() > values[-2 * half : -half].mean() + MIN_ACC / 2
