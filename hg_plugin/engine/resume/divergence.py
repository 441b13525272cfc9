"""What to do when a training goes wrong: it diverges, collapses, or has images that cannot be read."""

from collections import deque
from typing import NoReturn

import torch
from mmengine import dist
from mmengine.hooks import EMAHook, Hook, LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner

from hg_plugin.datasets.walk import walk
from hg_plugin.engine.optim_wrapper import not_finite
from hg_plugin.utils.errors import InputError, TrainingDiverged

from .collapse import CollapseWarning
from .guard import checkpoint_hook
from .latest import latest_checkpoint
from .running_statistics import RunningStatistics

# or running variance; the square of anything larger is infinite
LARGEST_WEIGHT = 1e19


@HOOKS.register_module()
class DivergenceHook(Hook):
    """Count steps with a loss or gradient that is not finite; many in a row end the run with exit code 86.

    Such steps are skipped: by :class:`AutocastOptimWrapper` and MMEngine's ``AmpOptimWrapper`` themselves,
    with another ``OptimWrapper`` by this hook, which then waits for the device in every step. Running
    statistics of batch norms are put back. Counts are read from the device every ``interval`` iterations, at
    the end of an epoch and before a checkpoint, so a training may end so many iterations late.

    The hook also warns of a collapse, and shares what each process knows of unreadable images, which
    :class:`MPIIPoseDataset` replaces by other persons, so that all count and avoid the same.

    Args:
        max_skipped: Steps in a row after which the training has diverged. Defaults to 20.
        interval: Iterations between two readings. Defaults to None: that of ``LoggerHook``.
        collapse: Arguments of :class:`CollapseWarning`. Defaults to {}.

    Raises:
        InputError: From a dataset, in all processes, when too many of its images are unreadable.
    """

    # before EMAHook, which averages the weights
    priority = 'ABOVE_NORMAL'

    def __init__(self, max_skipped: int = 20, interval: int | None = None, collapse: dict = {}):
        self.max_skipped = max_skipped
        self.interval = interval
        self.collapse = CollapseWarning(**collapse)
        self.unread: list[torch.Tensor] = []
        self.in_a_row = 0
        self.datasets: list = []
        # why to end: too many unreadable images; PreemptionHook saves before it raises this
        self.error: InputError | None = None

    def before_run(self, runner: Runner) -> None:
        if isinstance(runner._train_loop, BaseLoop):  # still a config where the runner only tests
            everything = walk(runner.train_dataloader.dataset)
            self.datasets = [dataset for dataset in everything if hasattr(dataset, 'unreadable')]
            for dataset in self.datasets:
                dataset.hook_checks = True

    def before_train(self, runner: Runner) -> None:
        self.statistics = RunningStatistics(runner.model)
        self.unread, self.in_a_row = [], 0
        self.every = self.interval or next(
            (hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 1
        )
        wrapper = runner.optim_wrapper
        # for each of the latest steps a scalar on the device: 1 if it was skipped
        self.skipped: deque | None = getattr(wrapper, 'skipped', None)
        if (
            self.skipped is None
            and isinstance(wrapper, OptimWrapper)
            and not isinstance(wrapper, AmpOptimWrapper)
        ):
            self.skipped = deque()
            self.handle = wrapper.optimizer.register_step_pre_hook(self._skip)

    def _skip(self, optimizer: torch.optim.Optimizer, *_) -> None:
        """Let a step change nothing, by taking its gradients away, if they are not finite."""
        self.skipped.append(not_finite(optimizer))
        if self.skipped[-1]:
            optimizer.zero_grad()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        if self.error:  # which no PreemptionHook has raised
            raise self.error
        self.statistics.remember()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        flag = None
        if self.skipped is not None:
            while self.skipped:  # none while gradients are accumulated
                flag = self.skipped.popleft()
        elif isinstance((outputs or {}).get('loss'), torch.Tensor):
            flag = (~outputs['loss'].detach().isfinite()).float()
        if flag is not None:
            self.unread.append(flag)
        self.statistics.restore(flag)
        self.collapse.check(runner)
        last = self.end_of_epoch(runner.train_dataloader, batch_idx)
        if last or self.every_n_inner_iters(batch_idx, self.every):
            self.read(runner)
            self.share()

    def after_train_epoch(self, runner: Runner) -> None:
        for dataset in self.datasets:
            if count := int(dataset.unreadable.sum()):
                runner.logger.warning(
                    f'{count} of the {len(dataset)} persons of {dataset.ann_file} have unreadable images '
                    f'({count / len(dataset):.2%}) and were replaced by the next.',
                    extra=dict(kind='unreadable images'),
                )

    def after_train(self, runner: Runner) -> None:
        if hasattr(self, 'handle'):
            self.handle.remove()

    def share(self) -> None:
        """Give every process the flags of all."""
        for dataset in self.datasets:
            if dist.get_world_size() > 1:
                flags = dataset.unreadable.int()
                dist.all_reduce(flags, 'max')
                dataset.unreadable |= flags.to(dataset.unreadable)
            try:
                dataset.check_unreadable()
            except InputError as error:
                self.error = error

    def read(self, runner: Runner) -> None:
        """Fetch the counts from the device, in all processes, and stop where it is time to."""
        if not self.unread:
            return
        flags = torch.stack(self.unread)
        self.unread = []
        dist.all_reduce(flags, 'max')  # losses differ between processes
        diverged = False
        for flag in flags.tolist():
            self.in_a_row = self.in_a_row + 1 if flag else 0
            diverged |= self.in_a_row >= self.max_skipped
        if not any(flags.tolist()):
            return
        count = int(flags.sum())
        hub = runner.message_hub
        total = hub.get_info('skipped_steps', 0) + count
        hub.update_info('skipped_steps', total)
        runner.logger.warning(
            f'{count} of the last {len(flags)} steps had a loss or gradient that is not finite '
            f'({total} since the start, {self.in_a_row} in a row); they were skipped.',
            extra=dict(kind='skipped steps'),
        )
        if diverged:
            self._stop(runner)

    def _stop(self, runner: Runner) -> NoReturn:
        writer = checkpoint_hook(runner)
        latest = latest_checkpoint(runner.work_dir, writer.out_dir if writer else None)
        message = (
            f'Training has diverged: {self.max_skipped} steps in a row had a loss or gradient not finite; '
            'lower the learning rate, lengthen its warm-up, or check the images (hg_plugin check CONFIG), '
            f'and resume from {latest or "the start"}.'
        )
        if dist.is_main_process():
            runner.logger.error(message, extra=dict(kind='divergence'))
        raise TrainingDiverged(message)


def why_not_to_save(runner: Runner) -> str | None:
    """Why a checkpoint would be worthless, or None where it would not.

    Call it in all processes: they share the counts of :class:`DivergenceHook`.
    """
    for hook in runner.hooks:
        if isinstance(hook, DivergenceHook):
            hook.read(runner)
            # one alone may be due to its batch; more of them, to the weights
            if hook.in_a_row > 1:
                return f'the last {hook.in_a_row} steps had a loss or gradient that is not finite'
    models = [runner.model.module if is_model_wrapper(runner.model) else runner.model]
    models += [hook.ema_model for hook in runner.hooks if isinstance(hook, EMAHook)]
    # model by model, because an average may live on another device
    states = (
        [v for v in model.state_dict().values() if v.is_floating_point() and v.numel()] for model in models
    )
    largest = [torch.stack(torch._foreach_norm(state, float('inf'))).max() for state in states]
    if not all(value <= LARGEST_WEIGHT for value in largest):
        return (
            'its weights are NaN, infinite or above 1e19: the training has diverged, lower the learning rate'
        )
    return None
