"""One training at a time in a work directory."""

import contextlib
import logging
import os
import os.path as osp
import platform
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from mmengine.logging import print_log

from hg_plugin.utils.errors import InputError


def lock_folder(folder: str) -> FileLock:
    """Lock a folder for this process, by the file ``.lock`` in it.

    The lock ends with the process, however that ends; data loaders' workers do not inherit it. A second call
    in the same thread counts: release as often, or with ``force=True``. Where a file system has no locks, a
    warning says so, and the folder is not guarded.

    Raises:
        InputError: Another process has it. The message names the process.
    """
    path = Path(osp.realpath(folder), '.lock')
    lock = FileLock(path, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with contextlib.suppress(OSError):
            owner = ' '.join(path.read_text(errors='replace').split()[:5])
        raise InputError(
            f'{folder} is in use by {owner or "another process"}, which trains; wait until it ends, or give '
            'another work_dir.'
        ) from None
    except (OSError, NotImplementedError) as error:
        text = f'{folder} cannot be locked ({error}): see yourself that no second run uses it.'
        print_log(text, 'current', logging.WARNING)
    else:
        with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
            path.write_text(f'process {os.getpid()} on {platform.node()}\n')
    return lock


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Lock a folder in a ``with`` block, whatever the block does with the lock. See :func:`lock_folder`."""
    lock = lock_folder(folder)
    try:
        yield
    finally:
        lock.release(force=True)


def is_locked(folder: str | os.PathLike) -> bool:
    """Whether a process has locked a folder; False also where nobody can tell."""
    path = osp.join(osp.realpath(folder), '.lock')
    try:
        if osp.exists(path):
            FileLock(path).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        pass
    return False
