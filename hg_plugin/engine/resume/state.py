"""Whether the state in a checkpoint fits the training that resumes from it, and what the config changes."""

import logging
import warnings
from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim.scheduler.param_scheduler import ReduceOnPlateauParamScheduler
from mmengine.runner import IterBasedTrainLoop, Runner

from hg_plugin.utils.checkpoint import check_weights, misfits, unusable, weights_of
from hg_plugin.utils.errors import InputError

# what torch's optimizers keep for every parameter, in its shape
MOMENTS = {
    *('exp_avg', 'exp_avg_sq', 'max_exp_avg_sq', 'exp_inf', 'momentum_buffer', 'momentum', 'square_avg'),
    *('grad_avg', 'acc_delta', 'sum'),
}
# how an optimizer computes, and not what
IMPLEMENTATION = {'foreach', 'fused', 'capturable', 'differentiable', 'params', 'param_names'}
# the position of a scheduler, beside which it holds its settings
POSITION = {'last_step', '_global_step', '_last_value', 'verbose'}


def check_training(runner: Runner, state: dict, path: str) -> None:
    """Check that a checkpoint, which ``path`` holds, fits the model and the optimizer of a runner.

    Raises:
        InputError: It does not fit.
    """
    parts, averages = [state], state.get('ema_state_dict')
    if isinstance(averages, dict):  # beside the weights, it counts steps
        parts.append({name: each for name, each in averages.items() if str(name).startswith('module.')})
    for part in parts:
        check_weights(runner.model, weights_of(part, path), path)
    problem = _misfit(runner.optim_wrapper.optimizer, state['optimizer'])
    if problem:
        raise InputError(
            f"The checkpoint {path} does not fit the config's optimizer: {problem}; resume with its own "
            'config, or give it as load_from to start a new training from its weights.'
        )


def _misfit(optimizer: torch.optim.Optimizer, state: dict) -> str | None:
    """How the state of an optimizer does not fit one, in words."""
    saved, own = state['param_groups'], optimizer.state_dict()['param_groups']
    sizes = [[len(group['params']) for group in groups] for groups in (saved, own)]
    if sizes[0] != sizes[1]:
        return f'its parameter groups have {sizes[0]} parameters, and those of the config {sizes[1]}'
    settings = [{key for key in groups[0] if not key.startswith('initial_')} for groups in (saved, own)]
    theirs, ours = settings[0] - settings[1], settings[1] - settings[0]
    entries = [state['state'].get(index, {}) for group in saved for index in group['params']]
    kept = {key for entry in entries for key in entry}
    # another version of torch has only more settings, or only fewer; those of Adamax are some of Adam's
    if theirs and ours or ('exp_inf' in kept) != isinstance(optimizer, torch.optim.Adamax):
        held = ', '.join(sorted(theirs or kept))
        return f'it is not of {type(optimizer).__name__}, but of one with {held}'
    parameters = [parameter for group in optimizer.param_groups for parameter in group['params']]
    values, expected = {}, {}
    for index, (entry, parameter) in enumerate(zip(entries, parameters)):
        for key in MOMENTS & entry.keys():
            if isinstance(entry[key], torch.Tensor):  # SGD without momentum keeps None
                name = f'{key} of parameter {index}'
                values[name], expected[name] = entry[key], parameter
    shapes = {name: tuple(each.shape) for name, each in expected.items()}
    return '; '.join(misfits(values, shapes) or unusable(values, expected)) or None


def resume_optimizer(runner: Runner, state: dict) -> None:
    """Load the optimizer's state, and set its settings and the schedule to what the config says.

    What that changes is logged. MMEngine takes the settings of the checkpoint. The runner is at the epoch and
    iteration of the checkpoint already.
    """
    schedulers, saved = runner.param_schedulers or [], state.get('param_schedulers') or []
    changed = [_settings(each.state_dict()) for each in schedulers] != [_settings(each) for each in saved]
    kept = set()
    if changed and any(isinstance(each, ReduceOnPlateauParamScheduler) for each in schedulers):
        _say('A schedule that follows a metric is resumed as it was; changes in the config do not count.')
        changed = False
    if not changed:
        for scheduler, position in zip(schedulers, saved):
            scheduler.load_state_dict(position)
            kept |= {scheduler.param_name, f'initial_{scheduler.param_name}'}
        if 'momentum' in kept:  # the schedulers' name for the first of betas
            kept.add('betas')

    wrapper, optimizer = runner.optim_wrapper, dict(state['optimizer'])
    # where there are several groups, the wrapper has one more, which is not the optimizer's
    base = optimizer.get('base_param_settings')
    theirs = [*optimizer['param_groups'], *([base] if base else [])]
    groups = [
        {**group, **{key: value for key, value in own.items() if key != 'params' and key not in kept}}
        for group, own in zip(theirs, wrapper.param_groups)
    ]
    if base:
        optimizer['base_param_settings'] = groups.pop()
    wrapper.load_state_dict({**optimizer, 'param_groups': groups})
    if changed:
        _replay(runner, schedulers)
    changes = {}
    for group, own in zip(theirs, wrapper.optimizer.param_groups):
        for key in own.keys() & group.keys() - IMPLEMENTATION:
            if own[key] != group[key]:
                changes.setdefault(key, f'{_short(group[key])} to {_short(own[key])}')  # of the first group
    if changes:
        text = '; '.join(f'{key}: {changes[key]}' for key in sorted(changes))
        _say(f'The config has changed since the checkpoint, and takes effect: {text}.')
    loop = runner.train_loop
    by_iteration = isinstance(loop, IterBasedTrainLoop)
    done, last = (loop.iter, loop.max_iters) if by_iteration else (loop.epoch, loop.max_epochs)
    if done >= last:
        _say(f'The checkpoint is at {done} of {last} in the config: nothing is left to train.')


def _replay(runner: Runner, schedulers: list) -> None:
    """Step the config's schedulers to where the checkpoint is."""
    epochs, iterations, length = runner.epoch, runner.iter, len(runner.train_dataloader)
    if epochs and not epochs * length <= iterations < (epochs + 1) * length:  # it had another batch size
        length = max(1, iterations // epochs)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # there is no step of the optimizer in between
        for iteration in range(1, iterations + 1):
            ends_epoch = iteration % length == 0 and iteration <= epochs * length
            for scheduler in sorted(schedulers, key=lambda each: each.by_epoch):
                if ends_epoch or not scheduler.by_epoch:
                    scheduler.step()


def _settings(state: dict) -> dict:
    """What the config has set of a scheduler."""
    return {key: value for key, value in state.items() if key not in POSITION}


def _short(value: Any) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)


def _say(text: str) -> None:
    print_log(text, 'current', logging.WARNING)
