"""Which checkpoint a training resumes from: the newest one that is whole."""

import os
import os.path as osp
import re

from mmengine.logging import MMLogger

from hg_plugin.utils.checkpoint import not_finite, read_checkpoint, weights_of
from hg_plugin.utils.errors import InputError

# the parts of a message hub's state
PARTS = ('log_scalars', 'runtime_info', 'resumed_keys')


def checkpoint_folder(work_dir: str, out_dir: str | None = None) -> str:
    """Where a CheckpointHook with this ``out_dir`` writes."""
    if out_dir is None or out_dir == work_dir:
        return work_dir
    return osp.join(out_dir, osp.basename(work_dir.rstrip(osp.sep)))


def latest_training(work_dir: str, out_dir: str | None = None) -> tuple[str, dict] | None:
    """The newest whole checkpoint of a run, where the run's checkpoints lie now.

    That is the one in the file ``last_checkpoint``, or where it is damaged or not finite the nearest one
    before it, or else after it. MMEngine writes a whole path to the file, in a copied folder that of the
    original, of which only the last part counts. The log names what is skipped, and why.

    Args:
        work_dir: The run's folder.
        out_dir: That of its CheckpointHook. Defaults to None.

    Returns:
        Its path, and what it holds; or None where the run has not written a checkpoint, and starts from the
        beginning.

    Raises:
        InputError: There are checkpoints, but none is whole.
    """
    folder, pointer = checkpoint_folder(work_dir, out_dir), osp.join(work_dir, 'last_checkpoint')
    try:
        with open(pointer, encoding='utf-8', errors='replace') as content:
            named = basename(content.read(4096).strip())
    except FileNotFoundError:
        named = None
    except OSError as error:
        raise InputError(
            f'{pointer} cannot be read ({error.strerror}); name the checkpoint to resume from.'
        ) from error
    files = os.listdir(folder) if osp.isdir(folder) else []
    names = [name for name in files if name.endswith('.pth') and not name.startswith('best_')]
    # the nearest before the named one is of the same run, and those after it may be of an older one
    names = sorted(names, key=lambda name: (_steps(name) <= _steps(named or ''), _steps(name)), reverse=True)
    problems = []
    if named is not None and named not in names:
        text = f'names {named[:80]!r}, which is not there' if named else 'is empty'
        problems.append(f'{pointer} {text}')
    elif named:
        names = [named, *(name for name in names if name != named)]
    for name in names:
        path = osp.join(folder, name)
        try:
            content = read_checkpoint(path)
            training = holds_training(content)
            if training and not not_finite(weights_of(content, path)):
                for problem in problems:
                    MMLogger.get_current_instance().warning(
                        f'Resuming from {path}: {problem}.', extra=dict(kind='checkpoints')
                    )
                return path, content
            if training:
                problems.append(f'{path} holds weights that are not finite')
            elif name == named:
                problems.append(f'{path} holds no state of a training')
        except InputError as error:
            problems.append(str(error).removesuffix('.').removesuffix('; get it again'))
    if problems:
        raise InputError(
            f'{folder} has no undamaged checkpoint to resume from: {problems[0]}; '
            'give a checkpoint, or leave out resume to start from the beginning.'
        )
    return None


def latest_checkpoint(work_dir: str, out_dir: str | None = None) -> str | None:
    """The path of :func:`latest_training`, or None."""
    found = latest_training(work_dir, out_dir)
    return found and found[0]


def read_training(path: str) -> dict:
    """Read a checkpoint to the CPU that a training resumes from.

    Raises:
        InputError: It cannot be read, or holds no training.
    """
    checkpoint = read_checkpoint(path)
    if not holds_training(checkpoint):
        raise InputError(f'{path} holds no state of a training to resume; give it as load_from.')
    return checkpoint


def holds_training(checkpoint: dict) -> bool:
    """Whether a checkpoint has what MMEngine resumes a training from."""
    parts = meta, hub, _ = [checkpoint.get(part) for part in ('meta', 'message_hub', 'optimizer')]
    if not all(isinstance(part, dict) for part in parts):
        return False
    numbers = meta.get('epoch'), meta.get('iter'), meta.get('seed') or 0
    return all(type(number) is int and 0 <= number < 2**32 for number in numbers) and all(
        isinstance(hub.get(part), dict) for part in PARTS
    )


def basename(path: str) -> str:
    """The last part of a path of any system."""
    return re.split(r'[/\\]', path)[-1]


def _steps(name: str) -> list[int]:
    """The numbers in a file's name, as in epoch_3.pth."""
    return [int(step) for step in re.findall(r'\d{1,18}', name)]
