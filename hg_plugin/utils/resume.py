"""What a training resumes from is data: nothing in a checkpoint is run, and no path in it is followed.

MMEngine 0.10 executes ``meta['config']``, and its CheckpointHook deletes whatever path the message hub names
as the previous best checkpoint, which in a copied work directory is the original's.
"""

import functools
import os.path as osp
import re

from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from .errors import InputError

# the parts of a message hub's state
PARTS = ('log_scalars', 'runtime_info', 'resumed_keys')
# what of its runtime_info is code, or names files or their run, as best_ckpt and best_ckpt_KEY do
NAMES = ('cfg', 'last_ckpt', 'keep_ckpt_ids', 'run_id')


def guard_resume() -> None:
    """Lets every MMEngine runner, that of MMPose's own tools too, resume through :func:`sanitize`."""
    load_checkpoint, load_or_resume = Runner.load_checkpoint, Runner.load_or_resume

    @functools.wraps(load_checkpoint)
    def load_sanitized(self, filename, *args, **kwargs):
        hook = _checkpoint_hook(self)
        folder = checkpoint_folder(self.work_dir, hook.out_dir if hook else None)
        own = osp.realpath(osp.dirname(osp.expanduser(filename))) == osp.realpath(folder)
        return sanitize(load_checkpoint(self, filename, *args, **kwargs), hook if own else None, folder)

    @functools.wraps(load_or_resume)
    def resume_latest(self):
        if self._resume and self._load_from is None and not self._has_loaded:
            hook = _checkpoint_hook(self)
            self._load_from = latest_checkpoint(self.work_dir, hook.out_dir if hook else None)
        load_or_resume(self)

    Runner.load_checkpoint, Runner.load_or_resume = load_sanitized, resume_latest


def _checkpoint_hook(runner: Runner) -> CheckpointHook | None:
    return next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)


def checkpoint_folder(work_dir: str, out_dir: str | None = None) -> str:
    """Where a CheckpointHook with this ``out_dir`` writes."""
    if out_dir is None or out_dir == work_dir:
        return work_dir
    return osp.join(out_dir, osp.basename(work_dir.rstrip(osp.sep)))


def latest_checkpoint(work_dir: str, out_dir: str | None = None) -> str | None:
    """The checkpoint that the file ``last_checkpoint`` names, where the run's checkpoints lie now.

    The file holds a whole path: in a copied folder that of the original, in a moved one that of nothing.

    Returns:
        None where there is no such file.

    Raises:
        InputError: where it cannot be read.
    """
    file = osp.join(work_dir, 'last_checkpoint')
    try:
        with open(file) as content:
            latest = content.read().strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f'{file} cannot be read ({error}); name the checkpoint to resume from.') from error
    return osp.join(checkpoint_folder(work_dir, out_dir), _basename(latest))


def holds_training(checkpoint: dict) -> bool:
    """Whether a checkpoint has what MMEngine resumes a training from."""
    meta, hub = checkpoint.get('meta'), checkpoint.get('message_hub')
    return (
        'optimizer' in checkpoint
        and isinstance(meta, dict)
        and isinstance(hub, dict)
        and type(meta.get('epoch')) is type(meta.get('iter')) is int
        and all(isinstance(hub.get(part), dict) for part in PARTS)
    )


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
        name = _basename(value)
        files = [hook.filename_tmpl.format(int(step)) for step in re.findall(r'\d{1,18}', name)]
        if name.startswith('best_') and name.endswith(tuple(f'_{file}'.replace('/', '_') for file in files)):
            return osp.join(folder, name)
    return None


def _basename(path: str) -> str:
    return re.split(r'[/\\]', path)[-1]
