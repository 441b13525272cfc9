"""One training at a time in a work directory."""

import contextlib
import logging
import os
import os.path as osp
import platform
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# by real path; a lock ends with the process, however that ends
_held: dict[str, IO] = {}


def lock_folder(folder: str, logger: logging.Logger) -> str | None:
    """Lock a folder for this process, until it ends. A second call in the same process changes nothing.

    The lock is a POSIX record lock on the file ``.lock``: unlike that of ``flock``, data loaders' workers do
    not inherit it, and NFS passes it on to other machines. Where a file system has none, as Lustre mounted
    without ``flock``, a warning says so, and the folder is not guarded.

    Returns:
        None, or who has the folder and what to do, in one sentence.
    """
    path = osp.join(osp.realpath(folder), '.lock')
    if fcntl is None or path in _held:
        return None
    try:
        file = open(path, 'ab+', buffering=0)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        with file:
            file.seek(0)
            owner = ' '.join(file.read(200).decode(errors='replace').split()) or 'another process'
        return f'{folder} is in use by {owner}, which trains; wait until it ends, or give another work_dir.'
    except OSError as error:
        logger.warning(
            f'{folder} cannot be locked ({error.strerror}): see yourself that no second run uses it.'
        )
        return None
    _held[path] = file
    with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
        file.truncate(0)
        file.write(f'process {os.getpid()} on {platform.node()}\n'.encode())
    return None


def is_locked(folder: str | os.PathLike) -> bool:
    """Whether a process has locked a folder; False also where nobody can tell."""
    path = osp.join(osp.realpath(folder), '.lock')
    if fcntl is None or path in _held:  # closing the file would end the own lock
        return path in _held
    try:
        with open(path, 'rb+') as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
