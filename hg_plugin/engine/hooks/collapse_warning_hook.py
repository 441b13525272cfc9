"""Says so when a training has collapsed to empty heatmaps."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class CollapseWarningHook(Hook):
    """Warns while the predicted heatmaps have no peaks.

    Over 99 % of a target heatmap is zero, so that a network which predicts nothing at all has a small, steady loss that looks
    like success. The peaks tell: targets peak at 1, and ``heatmap_peak`` of :class:`MultiStageHeatmapHead` rises with the first signs of learning.

    Args:
        min_peak: Mean peak below which the training counts as collapsed. Defaults to 0.05.
        interval: Iterations between two looks, and before the first. Defaults to 1000.
    """

    priority = 'VERY_LOW'

    def __init__(self, min_peak: float = 0.05, interval: int = 1000):
        self.min_peak = min_peak
        self.interval = interval

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if (
            not self.every_n_train_iters(runner, self.interval)
            or 'train/heatmap_peak' not in runner.message_hub.log_scalars
        ):
            return
        peak = runner.message_hub.get_scalar('train/heatmap_peak').mean(window_size=50)
        if peak < self.min_peak:
            runner.logger.warning(
                f'The predicted heatmaps peak at {peak:.4f} after {runner.iter + 1} iterations, where the targets peak at 1: '
                'this training has probably collapsed to empty heatmaps, however small its loss. Stop it, look at the training '
                'pictures and keypoints, and try a lower learning rate, a longer warm-up, or a larger sigma of the codec.'
            )
