"""Files that are whole or not there."""

import contextlib
import os
from pathlib import Path

from .errors import InputError


@contextlib.contextmanager
def atomic_write(path):
    """A binary file to write to, which takes the place of ``path`` when the ``with`` block ends without an error."""
    path = Path(path)
    partial = path.with_name(f'{path.name}.partial')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(partial, 'wb') as file:
            yield file
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f'{path} cannot be written: {error.strerror or error}.') from error
    finally:
        with contextlib.suppress(
            OSError
        ):  # there is none after success, nor in a folder that cannot be written to
            partial.unlink()
