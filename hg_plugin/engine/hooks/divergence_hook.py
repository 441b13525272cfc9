"""What to do when a training diverges."""

from collections import deque
from typing import NoReturn

import torch
from mmengine import dist
from mmengine.hooks import CheckpointHook, EMAHook, Hook, LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from hg_plugin.engine.running_statistics import RunningStatistics
from hg_plugin.utils.errors import InputError, TrainingDiverged
from hg_plugin.utils.resume import latest_checkpoint

ACTIONS = ('stop', 'go_back')
# or running variance; the square of anything larger is infinite
LARGEST_WEIGHT = 1e19
# of a parameter group or scheduler
RATES = ('lr', 'initial_lr', 'max_lr', 'min_lr')


@HOOKS.register_module()
class DivergenceHook(Hook):
    """Count steps with a loss or gradient that is not finite, and end a training that has too many in a row.

    :class:`AutocastOptimWrapper` skips such steps, and MMEngine's ``AmpOptimWrapper`` those whose gradients
    are not finite; ``OptimWrapper`` does not. Running statistics of batch norms are put back. Counts are read
    from the device every ``interval`` iterations, before a validation and before a checkpoint, so a training
    may end so many iterations late.

    Args:
        max_skipped: Steps in a row after which the training has diverged. Defaults to 20.
        action: 'stop' ends the process with exit code 86. 'go_back' loads weights and optimizer of the last
            checkpoint and goes on from the present iteration at half the learning rate. Defaults to 'stop'.
        max_go_back: How often to go back before stopping. Defaults to 5.
        interval: Iterations between two readings. Defaults to None: that of ``LoggerHook``.

    Raises:
        InputError: If there is no such action.
    """

    # before EMAHook, which averages the weights
    priority = 'ABOVE_NORMAL'

    def __init__(
        self,
        max_skipped: int = 20,
        action: str = 'stop',
        max_go_back: int = 5,
        interval: int | None = None,
    ):
        if action not in ACTIONS:
            raise InputError(f'DivergenceHook: action is {action!r}; give one of {", ".join(ACTIONS)}.')
        self.max_skipped = max_skipped
        self.action = action
        self.max_go_back = max_go_back
        self.interval = interval

    def before_train(self, runner: Runner) -> None:
        self.statistics = RunningStatistics(runner.model)
        self.unread, self.in_a_row, self.times_back = [], 0, 0
        self.every = self.interval or next(
            (hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 1
        )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        self.statistics.remember()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        skipped: deque | None = getattr(runner.optim_wrapper, 'skipped', None)
        flag = None
        if skipped is not None:
            while skipped:  # none while gradients are accumulated
                flag = skipped.popleft()
        elif isinstance((outputs or {}).get('loss'), torch.Tensor):
            flag = (~outputs['loss'].detach().isfinite()).float()
        if flag is not None:
            self.unread.append(flag)
        self.statistics.restore(flag)
        if self.every_n_inner_iters(batch_idx, self.every):
            self.read(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self.read(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        if getattr(self, 'unread', None):  # not where a validation is all that runs
            self.read(runner)

    def read(self, runner: Runner) -> None:
        """Fetch the counts from the device, in all processes, and stop or go back where it is time to."""
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
        hub.update_info('skipped_steps', hub.get_info('skipped_steps', 0) + count)
        runner.logger.warning(
            f'{count} of the last {len(flags)} steps had a loss or gradient that is not finite '
            f'({hub.get_info("skipped_steps")} since the start, {self.in_a_row} in a row); '
            + ('they were skipped.' if hasattr(runner.optim_wrapper, 'skipped') else 'see the next lines.')
        )
        if diverged:
            self.in_a_row = 0
            self._act(runner)

    def _act(self, runner: Runner) -> None:
        what = f'Training has diverged: {self.max_skipped} steps in a row had a loss or gradient not finite'
        advice = 'lower the learning rate, lengthen its warm-up, or check the images (hg_plugin check CONFIG)'
        writer = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
        latest = latest_checkpoint(runner.work_dir, writer.out_dir if writer else None)
        if self.action == 'stop':
            stop(runner, f'{what}; {advice}, and resume from {latest or "the start"}.')
        if not latest or self.times_back == self.max_go_back:
            why = (
                'there is no checkpoint to go back to' if not latest else f'went back {self.times_back} times'
            )
            stop(runner, f'{what}, and {why}; {advice}.')
        self.times_back += 1
        go_back(runner, latest)
        rates = ', '.join(f'{rate:g}' for rate in runner.optim_wrapper.get_lr()['lr'])
        runner.logger.warning(
            f'{what}. Went back to the weights of {latest}, at half the learning rate ({rates} now).'
        )


def stop(runner: Runner, message: str) -> NoReturn:
    """Log why a training ends, once, and end it with the exit code of divergence."""
    if dist.is_main_process():
        runner.logger.error(message)
    raise TrainingDiverged(message)


def go_back(runner: Runner, path: str) -> None:
    """Load weights, averaged weights and the optimizer's state, and halve the learning rate.

    Epoch, iteration and the course of the learning rate go on.
    """
    groups = runner.optim_wrapper.state_dict()['param_groups']
    resume, runner._resume = runner._resume, True  # or EMAHook would start new averages
    try:
        checkpoint = runner.load_checkpoint(path, map_location='cpu')
    finally:
        runner._resume = resume
    runner.optim_wrapper.load_state_dict({**checkpoint['optimizer'], 'param_groups': groups})
    for group in runner.optim_wrapper.param_groups:
        group.update({rate: group[rate] / 2 for rate in RATES if rate in group})
    for scheduler in runner.param_schedulers or ():
        if scheduler.param_name == 'lr':
            scheduler.base_values = [value / 2 for value in scheduler.base_values]


def why_not_to_save(runner: Runner) -> str | None:
    """Why a checkpoint would be worthless, or None where it would not.

    Call it in all processes: they share the counts of :class:`DivergenceHook`.
    """
    for hook in runner.hooks:
        if isinstance(hook, DivergenceHook) and hasattr(hook, 'in_a_row'):
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
