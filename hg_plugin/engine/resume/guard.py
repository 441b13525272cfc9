"""What a training resumes from is data: nothing in a checkpoint is run, and no path in it is followed.

MMEngine 0.10 executes ``meta['config']``, and its CheckpointHook deletes whatever path the message hub names
as the previous best checkpoint, which in a copied work directory is the original's. The first two functions
take the place of methods of every runner, that of MMPose's own tools too.
"""

import os.path as osp
from collections.abc import Callable

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from mmengine.runner.checkpoint import _load_checkpoint_to_model

from hg_plugin.utils.errors import InputError

from .latest import PARTS, basename, checkpoint_folder, latest_training, read_training
from .state import check_training, resume_optimizer

# what of a message hub's runtime_info is code, or names files or their run, as best_ckpt and best_ckpt_KEY do
NAMES = ('cfg', 'last_ckpt', 'keep_ckpt_ids', 'run_id')
_load_or_resume, _resume = Runner.load_or_resume, Runner.resume


def load_or_resume(self: Runner) -> None:
    """Resume from the newest whole checkpoint, where none is named."""
    if self._resume and self._load_from is None and not self._has_loaded:
        self._load_from = in_main_process(_find_latest, self)
        if self._load_from is None:
            self.logger.warning(f'{self.work_dir} has no checkpoint: the training starts from scratch.')
            return
    _load_or_resume(self)


def _find_latest(runner: Runner) -> str | None:
    hook = checkpoint_hook(runner)
    found = latest_training(runner.work_dir, hook and hook.out_dir)
    path, runner.held_checkpoint = found or (None, None)
    return path


def resume(self: Runner, filename: str, **options) -> None:
    """Resume from a checkpoint that fits, with what the config changes.

    MMEngine's method does it with other options than its defaults, and where a model has several optimizers.

    Raises:
        InputError: It cannot be read, or does not fit.
    """
    # both are built already in a training
    self.optim_wrapper = self.build_optim_wrapper(self.optim_wrapper)
    if options or not isinstance(self.optim_wrapper, OptimWrapper):
        return _resume(self, filename, **options)
    filename = osp.expanduser(filename)
    # what was read already, in order to check or to find it
    checkpoint = vars(self).pop('held_checkpoint', None) or read_training(filename)
    if self.param_schedulers is not None:
        self.param_schedulers = self.build_param_scheduler(self.param_schedulers)
    check_training(self, checkpoint, filename)

    self.call_hook('after_load_checkpoint', checkpoint=checkpoint)
    model = self.model.module if is_model_wrapper(self.model) else self.model
    _load_checkpoint_to_model(model, checkpoint, logger=self.logger, revise_keys=[(r'^module.', '')])
    hook = checkpoint_hook(self)
    folder = checkpoint_folder(self.work_dir, hook and hook.out_dir)
    own = osp.realpath(osp.dirname(filename)) == osp.realpath(folder)
    self.message_hub.load_state_dict(own_messages(checkpoint['message_hub'], folder if own else None))
    meta = checkpoint['meta']
    self.train_loop._epoch, self.train_loop._iter = meta['epoch'], meta['iter']
    if meta.get('seed') is not None:
        self._randomness_cfg.update(seed=meta['seed'])
        self.set_randomness(**self._randomness_cfg)
    resume_optimizer(self, checkpoint)
    self._has_loaded = True
    self.logger.info(f'Load checkpoint from {filename}; resumed epoch: {self.epoch}, iter: {self.iter}')


def own_messages(hub: dict, folder: str | None) -> dict:
    """The state of a message hub without what MMEngine would take for a path.

    Args:
        hub: What a checkpoint holds.
        folder: Where the run's checkpoints lie. ``best_ckpt`` and ``keep_ckpt_ids`` then name files in it.
            None where the checkpoint was not in that folder, so that no file there is its run's.
    """
    # new dicts, because an OrderedDict in a pickle can have attributes in place of its methods
    hub = {part: dict(dict.items(hub[part])) for part in PARTS}
    info = hub['runtime_info']
    for key in [key for key in info if key in NAMES or str(key).startswith('best_ckpt')]:
        value = info.pop(key)
        if folder and key == 'keep_ckpt_ids' and isinstance(value, list):
            info[key] = [step for step in value if type(step) is int and step >= 0]
        elif folder and key == 'run_id':
            info[key] = str(value)
        elif folder and key.startswith('best_ckpt') and basename(str(value)).startswith('best_'):
            info[key] = osp.join(folder, basename(value))
        else:
            hub['resumed_keys'].pop(key, None)
    return hub


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
