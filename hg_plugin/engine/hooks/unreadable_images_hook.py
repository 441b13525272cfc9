"""Unreadable training images, counted over all processes."""

from mmengine import dist
from mmengine.hooks import Hook, LoggerHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from hg_plugin.datasets.walk import walk


@HOOKS.register_module()
class UnreadableImagesHook(Hook):
    """Share what each process knows of unreadable images, so that all count, report and avoid the same.

    :class:`MPIIPoseDataset` replaces them by other persons. Flags are shared whenever ``LoggerHook`` logs,
    and their number is logged after each epoch.

    Raises:
        InputError: From a dataset, in all processes, when too many of its images are unreadable.
    """

    def before_train(self, runner: Runner) -> None:
        self.interval = next((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 1)
        everything = walk(runner.train_dataloader.dataset)
        self.datasets = [dataset for dataset in everything if hasattr(dataset, 'unreadable')]

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self.every_n_inner_iters(batch_idx, self.interval):
            self.share()

    def after_train_epoch(self, runner: Runner) -> None:
        self.share()
        for dataset in self.datasets:
            if count := int(dataset.unreadable.sum()):
                runner.logger.warning(
                    f'{count} of the {len(dataset)} persons of {dataset.ann_file} have unreadable images '
                    f'({count / len(dataset):.2%}) and were replaced by the next.'
                )

    def share(self) -> None:
        """Give every process the flags of all."""
        for dataset in self.datasets:
            if dist.get_world_size() > 1:
                flags = dataset.unreadable.int()
                dist.all_reduce(flags, 'max')
                dataset.unreadable |= flags.to(dataset.unreadable)
            dataset.check_unreadable()
