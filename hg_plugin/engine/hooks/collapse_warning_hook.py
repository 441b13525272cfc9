"""A warning when training collapses to empty heatmaps."""

from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class CollapseWarningHook(Hook):
    """Warn while the predicted heatmaps have no peaks.

    Over 99 % of a target heatmap is zero, so a network that predicts nothing has a small, steady loss that
    looks like success. Targets peak at 1, and ``heatmap_peak`` of :class:`MultiStageHeatmapHead` rises as
    soon as the network learns.

    Args:
        min_peak: Mean peak below which training counts as collapsed. Defaults to 0.05.
        interval: Iterations before the first check and between two. Defaults to 1000.
    """

    priority = 'VERY_LOW'

    def __init__(self, min_peak: float = 0.05, interval: int = 1000):
        self.min_peak = min_peak
        self.interval = interval

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        hub = runner.message_hub
        if not self.every_n_train_iters(runner, self.interval) or 'train/heatmap_peak' not in hub.log_scalars:
            return
        peak = hub.get_scalar('train/heatmap_peak').mean(window_size=50)
        if peak < self.min_peak:
            runner.logger.warning(
                f'The predicted heatmaps peak at {peak:.4f} after {runner.iter + 1} iterations, and the '
                'targets at 1: training has probably collapsed to empty heatmaps, however small the loss. '
                'Stop it, check the training images and keypoints, and try a lower learning rate, a longer '
                'warm-up, or a larger sigma of the codec.'
            )
