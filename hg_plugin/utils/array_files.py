"""Files of named arrays: .npz, and MATLAB's .mat and .h5."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from .errors import InputError
from .files import atomic_write
from .mat_file import read_arrays


def _savemat(file, **arrays) -> None:
    from scipy.io import savemat

    savemat(file, arrays, do_compression=True)


def _load_mat(path, names) -> dict:
    try:
        return read_arrays(path, names)
    except NotImplementedError:  # version 7.3 is HDF5 with MATLAB's axes, the reverse of NumPy's
        return {name: array.T for name, array in _load_hdf5(path, names).items()}


def _load_hdf5(path, names) -> dict:
    import h5py

    with h5py.File(path, 'r') as file:
        return {name: file[name][()] for name in names if name in file}


def _load_npz(path, names) -> dict:
    with np.load(path) as file:
        return {name: file[name] for name in names if name in file.files}


WRITERS = {'.npz': np.savez, '.mat': _savemat}
READERS = {'.npz': _load_npz, '.mat': _load_mat, '.h5': _load_hdf5, '.hdf5': _load_hdf5}


def check_extension(path, known=WRITERS) -> str:
    """Return the extension of ``path``. Raise an InputError if it is not one of ``known``."""
    suffix = Path(path).suffix
    if suffix not in known:
        raise InputError(f'{path} does not end in {" or ".join(known)}; convert or rename it.')
    return suffix


def save_arrays(path, **arrays) -> None:
    """Write arrays to a ``.npz`` or ``.mat`` file, atomically.

    Raises:
        InputError: The extension is a different one, or the file cannot be written.
    """
    write = WRITERS[check_extension(path)]
    with atomic_write(path) as file:
        write(file, **arrays)


def read_file(path, reader: Callable, hint: str = 'get it again'):
    """Return ``reader(path)``.

    Raises:
        InputError: The file is missing, or ``reader`` fails, with ``hint`` as the advice.
    """
    if not Path(path).is_file():
        raise InputError(f'The file {path} does not exist; correct its path, or see docs/data.md to get it.')
    try:
        return reader(path)
    except Exception as error:  # readers raise anything on a broken file: zlib's, zipfile's, a TypeError ...
        hint = 'pip install h5py' if isinstance(error, ImportError) else hint
        raise InputError(f'{path} cannot be read ({type(error).__name__}: {error}); {hint}.') from error


def load_arrays(path, *names) -> list[np.ndarray]:
    """Read the arrays of these names as float64."""
    arrays = read_file(path, partial(READERS[check_extension(path, READERS)], names=names))
    for name in names:
        if getattr(arrays.get(name), 'dtype', np.dtype(object)).kind not in 'biuf':
            raise InputError(f'{path} has no array called {name}, or not one of real numbers.')
    return [np.asarray(arrays[name], np.float64) for name in names]
