"""Write files that are complete or absent."""

import contextlib
import errno
import io
import itertools
import os
import platform
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from .errors import InputError

# error numbers of a disk that takes no more or fails, or of a file's limit
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
_numbers = itertools.count()


class _File(io.FileIO):
    """A new file that reports its own write errors, so that no other OSError is taken for one."""

    def __init__(self, partial: Path, path: Path):
        with writing(path):
            partial.parent.mkdir(parents=True, exist_ok=True)
            super().__init__(partial, 'w')
        self.path = path

    def write(self, data) -> int:
        with writing(self.path):
            return super().write(data)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the ``with`` block into an :class:`InputError` that names ``path``."""
    try:
        yield
    except OSError as error:
        raise InputError(f'{path} cannot be written: {error.strerror or error}.') from error


def partial_name(path: str | PathLike) -> Path:
    """A name beside ``path`` that no other writer uses, in this process or another, on any machine."""
    path = Path(path)
    return path.with_name(f'{path.name}.{platform.node()[:40]}-{os.getpid()}-{next(_numbers)}.partial')


def replace_synced(partial: str | PathLike, path: str | PathLike) -> None:
    """Move a file to ``path`` so that not even a power failure leaves less than one whole file there."""
    _sync(partial)
    os.replace(partial, path)
    if os.name == 'posix':  # Windows opens no folders
        _sync(Path(path).parent)


def _sync(path: str | PathLike) -> None:
    # Windows syncs only files that are open for writing
    descriptor = os.open(path, os.O_RDONLY if os.name == 'posix' else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_write(path: str | PathLike, synced: bool = False) -> Iterator[io.BufferedWriter]:
    """Open a binary file that replaces ``path`` when the ``with`` block ends without an error.

    Of several writers at once, the last one's file stays. ``synced``: also after a power failure.

    Raises:
        InputError: The file cannot be written. Other errors of the block pass through.
    """
    path = Path(path)
    partial = partial_name(path)
    try:
        with io.BufferedWriter(_File(partial, path)) as file:
            yield file
        with writing(path):
            (replace_synced if synced else os.replace)(partial, path)
    finally:
        with contextlib.suppress(OSError):  # it is gone after success
            partial.unlink()
