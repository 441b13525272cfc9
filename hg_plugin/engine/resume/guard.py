"""What a training resumes from is data: nothing in a checkpoint is run, and no path in it is followed.

MMEngine 0.10 executes ``meta['config']``, and its CheckpointHook deletes whatever path the message hub names
as the previous best checkpoint, which in a copied work directory is the original's. The functions here take
the place of methods of every runner, that of MMPose's own tools too, see
:func:`hg_plugin.compat.mmengine.guard_resume`; ``stock`` is the method.
"""

import os.path as osp
import re
from collections.abc import Callable

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.runner.checkpoint import _load_checkpoint_to_model

from hg_plugin.utils.errors import InputError

from .latest import PARTS, basename, checkpoint_folder, latest_training, read_training
from .state import ConfigChanges, check_training

# what of its runtime_info is code, or names files or their run, as best_ckpt and best_ckpt_KEY do
NAMES = ('cfg', 'last_ckpt', 'keep_ckpt_ids', 'run_id')


def hold(runner: Runner, path: str, checkpoint: dict | None) -> None:
    """Let a runner take what was read from a file, once, instead of reading it again."""
    runner.held_checkpoint = (path, checkpoint)


def _held(runner: Runner, path: str) -> dict | None:
    held, checkpoint = vars(runner).pop('held_checkpoint', (None, None))
    return checkpoint if held == path else None


def load_checkpoint(stock: Callable, self: Runner, filename: str, *args, **kwargs) -> dict:
    """Load weights, and return the checkpoint without what MMEngine would run or take for a path."""
    hook = checkpoint_hook(self)
    folder = checkpoint_folder(self.work_dir, hook.out_dir if hook else None)
    own = osp.realpath(osp.dirname(osp.expanduser(filename))) == osp.realpath(folder)
    checkpoint = _held(self, filename)
    if checkpoint is None:
        checkpoint = stock(self, filename, *args, **kwargs)
    else:
        self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        model = self.model.module if is_model_wrapper(self.model) else self.model
        _load_checkpoint_to_model(model, checkpoint, logger=self.logger, revise_keys=[(r'^module.', '')])
        self._has_loaded = True
        self.logger.info(f'Load checkpoint from {filename}')
    return sanitize(checkpoint, hook if own else None, folder)


def load_or_resume(stock: Callable, self: Runner) -> None:
    """Resume from the newest whole checkpoint, where none is named."""
    if self._resume and self._load_from is None and not self._has_loaded:
        self._load_from = in_main_process(_find_latest, self)
        if self._load_from is None:
            self.logger.warning(f'{self.work_dir} has no checkpoint: the training starts from scratch.')
            return
    stock(self)


def resume(
    stock: Callable, self: Runner, filename: str, resume_optimizer=True, resume_param_scheduler=True, **kwargs
) -> None:
    """Resume from a checkpoint that fits, with what the config changes."""
    filename = osp.expanduser(filename)
    # MMEngine downloads an address such as https://
    if '://' in filename or not (resume_optimizer and resume_param_scheduler):
        return stock(self, filename, resume_optimizer, resume_param_scheduler, **kwargs)
    checkpoint = _held(self, filename) or read_training(filename)
    # both are built already in a training
    self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
    if self.param_schedulers is not None:
        self.param_schedulers = self.build_param_scheduler(self.param_schedulers)
    check_training(self, checkpoint, filename)
    changes = ConfigChanges(self, checkpoint)
    hold(self, filename, checkpoint)
    stock(self, filename, True, changes.resume_schedule, **kwargs)
    changes.apply()


def _find_latest(runner: Runner) -> str | None:
    hook = checkpoint_hook(runner)
    found = latest_training(runner.work_dir, hook.out_dir if hook else None)
    if found is None:
        return None
    hold(runner, *found)
    return found[0]


def in_main_process(function: Callable, *args):
    """What a function returns, or the InputError that it raises, in the first process, in all of them."""
    outcome = [None, None]
    if is_main_process():
        try:
            outcome[0] = function(*args)
        except InputError as error:
            outcome[1] = str(error)
    broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise InputError(outcome[1])
    return outcome[0]


def checkpoint_hook(runner: Runner) -> CheckpointHook | None:
    return next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)


def sanitize(checkpoint: dict, hook: CheckpointHook | None, folder: str) -> dict:
    """Takes from a checkpoint, in place, what MMEngine would execute or take for a path.

    Args:
        checkpoint: With or without the state of a training.
        hook: Whose ``best_ckpt`` and ``keep_ckpt_ids`` stay, where they name files that it writes into
            ``folder``. None where the checkpoint was not in that folder, so that no file there is its run's.
        folder: Where the hook writes.
    """
    if 'meta' in checkpoint:
        meta = checkpoint['meta']
        # a new dict, because an OrderedDict in a pickle can have attributes in place of its methods
        items = dict.items(meta) if isinstance(meta, dict) else ()
        checkpoint['meta'] = {key: value for key, value in items if key != 'config'}
    if 'message_hub' in checkpoint:
        hub = checkpoint['message_hub'] if isinstance(checkpoint['message_hub'], dict) else {}
        hub = {part: dict(dict.items(hub[part])) if isinstance(hub.get(part), dict) else {} for part in PARTS}
        info = hub['runtime_info']
        for key in [key for key in info if key in NAMES or str(key).startswith('best_ckpt')]:
            info[key] = _own(key, info[key], hook, folder)
            if info[key] is None:
                del info[key]
                hub['resumed_keys'].pop(key, None)
        checkpoint['message_hub'] = hub
    return checkpoint


def _own(key: str, value: object, hook: CheckpointHook | None, folder: str) -> object:
    """What an entry names in this run's folder, or None; ``cfg`` and ``last_ckpt`` are set anew anyway."""
    if hook and key == 'keep_ckpt_ids' and isinstance(value, list):
        return [step for step in value if type(step) is int and step >= 0]
    if hook and key == 'run_id' and isinstance(value, str):
        return value
    if hook and key.startswith('best_ckpt'):
        return own_best(value, hook, folder)
    return None


def own_best(value: object, hook: CheckpointHook, folder: str) -> str | None:
    """The path in ``folder`` of the best checkpoint that ``value`` names, if the hook gives such names."""
    if isinstance(value, str):
        name = basename(value)
        files = [hook.filename_tmpl.format(int(step)) for step in re.findall(r'\d{1,18}', name)]
        if name.startswith('best_') and name.endswith(tuple(f'_{file}'.replace('/', '_') for file in files)):
            return osp.join(folder, name)
    return None
