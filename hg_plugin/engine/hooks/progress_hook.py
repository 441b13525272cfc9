"""How far a training has come."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from hg_plugin.utils.progress import Progress


class ProgressHook(Hook):
    """Count the steps of a training, and show the metrics of the last validation beside them.

    Args:
        progress: What counts. Start it before the runner is built, so that the log is printed above its bar.
    """

    note = ''

    def __init__(self, progress: Progress):
        self.progress = progress

    def before_train(self, runner: Runner) -> None:
        self.progress.bar.update(self.progress.task, total=runner.max_iters, completed=runner.iter)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self.progress.update(self.note)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        self.note = ', '.join(f'{name} {value:.3f}' for name, value in (metrics or {}).items())
