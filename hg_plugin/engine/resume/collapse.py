"""A warning when training collapses to empty heatmaps."""

import math

from mmengine.runner import Runner


class CollapseWarning:
    """Warn when the predicted heatmaps show that nothing is learned.

    Over 99 % of a target heatmap is zero, so a network that predicts nothing has a small, steady loss that
    looks like success. Targets peak at 1. ``heatmap_peak`` of :class:`MultiStageHeatmapHead` does not tell
    by itself: on photographs it falls to 0.04 in a good training too, before it rises, but ``acc_pose`` rises
    meanwhile. A training has collapsed if ``heatmap_peak`` is below ``min_peak`` and ``acc_pose``

    - is below ``min_acc``, about that of random positions, as with equal heatmaps everywhere, or
    - has not risen in ``patience`` iterations, as with the same heatmaps for all images.

    It has diverged if ``heatmap_peak`` is NaN or its size above ``max_peak``.

    Args:
        min_peak: Mean peak below which training may have collapsed. Defaults to 0.05.
        max_peak: Mean peak above which training has diverged. Defaults to 10.
        min_acc: Mean accuracy of a training batch, 0 to 1. Defaults to 0.01.
        patience: Iterations in which accuracy must rise while peaks are low. Defaults to 500.
        interval: Iterations before the first check and between two, and over which means are taken; at most
            50 of them. Defaults to 100.
        repeat: Iterations before a warning is repeated. Defaults to 1000.
    """

    def __init__(
        self,
        min_peak: float = 0.05,
        max_peak: float = 10.0,
        min_acc: float = 0.01,
        patience: int = 500,
        interval: int = 100,
        repeat: int = 1000,
    ):
        self.min_peak = min_peak
        self.max_peak = max_peak
        self.min_acc = min_acc
        self.patience = patience
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
        if not abs(peak) <= self.max_peak:
            what = 'has diverged. Stop it, and try a lower learning rate or a longer warm-up.'
        elif peak < self.min_peak and not self._learns(scalars.get('train/acc_pose'), window):
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
        if accuracy is None or accuracy.mean(window) < self.min_acc:
            return False
        values, half = accuracy.data[0], self.patience // 2
        if len(values) < 2 * half:
            return True
        return values[-half:].mean() > values[-2 * half : -half].mean() + self.min_acc / 2
