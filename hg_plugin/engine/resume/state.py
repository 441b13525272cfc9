"""Whether the state in a checkpoint fits the training that resumes from it, and what the config changes."""

import copy
import logging
import warnings
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.optim.scheduler.param_scheduler import ReduceOnPlateauParamScheduler
from mmengine.runner import IterBasedTrainLoop, Runner

from hg_plugin.utils.checkpoint import check_weights, name_some, weights_of
from hg_plugin.utils.errors import InputError

# what torch's optimizers keep for every parameter, in its shape
MOMENTS = dict(
    **dict.fromkeys(('Adam', 'AdamW', 'NAdam', 'RAdam'), {'exp_avg', 'exp_avg_sq'}),
    Adamax={'exp_avg', 'exp_inf'},
    Adadelta={'square_avg', 'acc_delta'},
    RMSprop={'square_avg'},
    Adagrad={'sum'},
    MuonWithAuxAdam=set(),  # AdamW's, or a momentum alone
)
# and some of them, or optimizers of others
SHAPED = set.union(*MOMENTS.values(), {'max_exp_avg_sq', 'momentum_buffer', 'momentum', 'grad_avg'})
# how an optimizer computes, and not what
IMPLEMENTATION = {'foreach', 'fused', 'capturable', 'differentiable'}
# settings that all optimizers have, or that a version of torch has added
COMMON = IMPLEMENTATION | {
    'params',
    'param_names',
    'lr',
    'weight_decay',
    'maximize',
    'decoupled_weight_decay',
}
# the position of a scheduler, beside which it holds its settings
POSITION = {'last_step', '_global_step', '_last_value', 'base_values', 'verbose', 'optimizer'}


def check_training(runner: Runner, state: dict, path: str) -> None:
    """Check that a checkpoint fits the model and the optimizer of a runner.

    Args:
        runner: With its optimizer built.
        state: The checkpoint, for which :func:`.latest.holds_training` is true.
        path: Its file, for messages.

    Raises:
        InputError: It does not fit.
    """
    seed = state['meta'].get('seed')
    numbers = dict(epoch=state['meta']['epoch'], iter=state['meta']['iter'], seed=0 if seed is None else seed)
    for key, value in numbers.items():
        if type(value) is not int or not 0 <= value < 2**32:
            raise InputError(f'{path} is damaged: its {key} is {value!r:.50}; give another checkpoint.')
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    own = model.state_dict()
    parts, averages = [state.get('state_dict')], state.get('ema_state_dict')
    if isinstance(averages, dict):  # beside the weights, it counts steps
        parts.append({name: each for name, each in averages.items() if str(name).startswith('module.')})
    for part in parts:
        weights = weights_of(dict(state_dict=part), path)
        check_weights(model, weights, path)
        odd = [
            f'{name} ({weight.dtype} for {own[name].dtype})'
            for name, weight in weights.items()
            if weight.dtype != own[name].dtype
        ]
        if odd:
            raise InputError(
                f"The checkpoint {path} does not fit the config's model: "
                f'{name_some("is of another type", odd)[0]}; give the one that the training wrote.'
            )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for wrapper, saved in _optimizers(runner.optim_wrapper, state['optimizer']):
        problem = _misfit(wrapper.optimizer, saved, names)
        if problem:
            raise InputError(
                f"The checkpoint {path} does not fit the config's optimizer: {problem}; resume with its own "
                'config, or give it as load_from to start a new training from its weights.'
            )


def _optimizers(wrapper, state) -> list[tuple[OptimWrapper, Any]]:
    if isinstance(wrapper, OptimWrapper):
        return [(wrapper, state)]
    return [(each, state.get(name) if isinstance(state, dict) else None) for name, each in wrapper.items()]


def _misfit(optimizer: torch.optim.Optimizer, state: Any, names: dict[int, str]) -> str | None:
    """How the state of an optimizer does not fit one, in words."""
    groups, entries = (
        state.get(key) if isinstance(state, dict) else None for key in ('param_groups', 'state')
    )
    if not isinstance(entries, dict) or not groups or not all(isinstance(each, dict) for each in groups):
        return 'it holds no state of an optimizer'
    own = optimizer.param_groups
    sizes = [[len(group.get('params', ())) for group in some] for some in (groups, own)]
    if len(groups) != len(own):
        return f'it has {len(groups)} parameter groups, and the config {len(own)}'
    if sizes[0] != sizes[1]:
        return f'its parameter groups have {sizes[0]} parameters, and those of the config {sizes[1]}'
    theirs, ours = (
        {key for key in group if key not in COMMON and not key.startswith('initial_')}
        for group in (groups[0], own[0])
    )
    if theirs - ours and ours - theirs:
        settings = ', '.join(sorted(theirs - ours))
        return f'it is not of {type(optimizer).__name__}, but of one with {settings}'
    needed = next(
        (MOMENTS[kind.__name__] for kind in type(optimizer).__mro__ if kind.__name__ in MOMENTS), set()
    )
    shapes, types, infinite = [], [], []
    parameters = [parameter for group in own for parameter in group['params']]
    for index, parameter in zip((index for group in groups for index in group['params']), parameters):
        entry = entries.get(index, {})
        if entry and (not isinstance(entry, dict) or needed - entry.keys()):
            held = ', '.join(map(str, entry)) if isinstance(entry, dict) else type(entry).__name__
            return f'it is not of {type(optimizer).__name__}, but of one that keeps {held}'
        for key in sorted(SHAPED & entry.keys()):
            value, name = entry[key], f'{key} of {names.get(id(parameter), index)}'
            if not isinstance(value, torch.Tensor):
                continue
            if value.shape != parameter.shape:
                shapes.append(f'{name} {tuple(value.shape)} for {tuple(parameter.shape)}')
            elif value.dtype != parameter.dtype:
                types.append(f'{name} ({value.dtype} for {parameter.dtype})')
            elif not value.isfinite().all():
                infinite.append(name)
    problems = [
        *name_some('has another shape', shapes),
        *name_some('is of another type', types),
        *name_some('is not finite', infinite),
    ]
    return '; '.join(problems) or None


class ConfigChanges:
    """What the config sets otherwise than the checkpoint takes effect, and the log says so.

    MMEngine loads the settings of the optimizer and the schedule from the checkpoint, over those of the
    config. Make one before it does, pass it ``resume_schedule``, and call :meth:`apply` afterwards.

    Args:
        runner: With its optimizer and schedulers built from the config, and not loaded.
        state: The checkpoint.
    """

    def __init__(self, runner: Runner, state: dict):
        self.runner, self.meta = runner, state['meta']
        self.groups: list[dict] = []
        self.resume_schedule = True
        if not isinstance(runner.optim_wrapper, OptimWrapper):  # several optimizers
            return
        self.groups = [
            {key: copy.copy(value) for key, value in group.items() if key != 'params'}
            for group in runner.optim_wrapper.param_groups
        ]
        # the wrapper's last group, if there are several, is not the optimizer's
        saved = state['optimizer']
        self.saved = [*saved['param_groups'], saved.get('base_param_settings') or {}]
        self.schedulers = runner.param_schedulers or []
        self.scheduled = {scheduler.param_name for scheduler in self.schedulers}
        bases = {f'initial_{name}' for name in self.scheduled}
        changed = any(
            key in group and group[key] != own[key]
            for own, group in zip(self.groups, self.saved)
            for key in bases & own.keys()
        ) or [_settings(scheduler.state_dict()) for scheduler in self.schedulers] != [
            _settings(saved) for saved in state.get('param_schedulers') or []
        ]
        if changed and any(isinstance(each, ReduceOnPlateauParamScheduler) for each in self.schedulers):
            _say('A schedule that follows a metric is resumed as it was; changes in the config do not count.')
        elif self.schedulers:
            self.resume_schedule = not changed

    def apply(self) -> None:
        """Set what the config changes, and log it."""
        if self.groups:
            self._set_groups()
        loop = self.runner.train_loop
        by_iteration = isinstance(loop, IterBasedTrainLoop)
        done, last = (loop.iter, loop.max_iters) if by_iteration else (loop.epoch, loop.max_epochs)
        if done >= last:
            _say(f'The checkpoint is at {done} of {last} in the config: nothing is left to train.')

    def _set_groups(self) -> None:
        keep = set() if not self.resume_schedule else self.scheduled
        if 'momentum' in keep:  # the schedulers' name for the first of betas
            keep = keep | {'betas'}
        changes = {}
        for group, own, saved in zip(self.runner.optim_wrapper.param_groups, self.groups, self.saved):
            for key, value in own.items():
                if key in keep or key.startswith('initial_') and key[8:] in keep:
                    continue
                group[key] = value
                if key in saved and saved[key] != value and key not in IMPLEMENTATION | self.scheduled:
                    text = f'{_short(saved[key])} to {_short(value)}'
                    changes.setdefault(key.removeprefix('initial_'), text)  # of the first group
        if not self.resume_schedule:
            self._replay()
            now = {name: self.runner.optim_wrapper.param_groups[0][name] for name in sorted(self.scheduled)}
            changes['schedule'] = ', '.join(
                f'{name} continues at {value:.4g}, where the checkpoint had {self.saved[0][name]:.4g}'
                for name, value in now.items()
                if name in self.saved[0]
            )
        if changes:
            text = '; '.join(f'{key}: {change}' for key, change in changes.items())
            _say(f'The config has changed since the checkpoint, and takes effect: {text}.')

    def _replay(self) -> None:
        """Step the config's schedulers to where the checkpoint is."""
        loop, epochs, iterations = self.runner.train_loop, self.meta['epoch'], self.meta['iter']
        length = len(loop.dataloader)
        if epochs and not epochs * length <= iterations < (epochs + 1) * length:  # it had another batch size
            length = max(1, iterations // epochs)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # there is no step of the optimizer in between
            for iteration in range(1, iterations + 1):
                ends_epoch = iteration % length == 0 and iteration <= epochs * length
                for scheduler in sorted(self.schedulers, key=lambda each: each.by_epoch):
                    if ends_epoch or not scheduler.by_epoch:
                        scheduler.step()


def _settings(state: dict) -> dict:
    """What the config has set of a scheduler."""
    return {key: value for key, value in state.items() if key not in POSITION}


def _short(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _say(text: str) -> None:
    print_log(text, 'current', logging.WARNING)
