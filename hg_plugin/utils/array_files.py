"""Files of named arrays: .npz, and MATLAB's .mat and .h5."""

import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from .errors import InputError
from .files import atomic_write

# of MAT-files of version 5 to 7: types of elements; class and flag of arrays
MATRIX, COMPRESSED = 14, 15
KNOWN_TYPES = {*range(1, 8), 9, *range(12, 19)}
SPARSE, COMPLEX = 5, 0x0800


def _savemat(file, **arrays) -> None:
    from scipy.io import savemat

    savemat(file, arrays, do_compression=True)


def _load_mat(path, names) -> dict:
    from scipy.io import loadmat

    data = Path(path).read_bytes()
    order = {b'IM': '<', b'MI': '>'}.get(data[126:128])
    if order and data[125 if order == '<' else 124] == 1:  # not version 4, nor 7.3
        _check_mat(data, order, 128)
    try:
        return loadmat(path, variable_names=names)
    except NotImplementedError:  # version 7.3 is HDF5 with MATLAB's axes, the reverse of NumPy's
        return {name: array.T for name, array in _load_hdf5(path, names).items()}


def _check_mat(data: bytes, order: str, begin: int = 0) -> None:
    """Check elements of a file of version 5 to 7: on some wrong ones, SciPy's reader ends the process.

    Source: MathWorks, "MAT-File Format", on Level 5.
    """
    while begin < len(data):
        kind, size = struct.unpack_from(order + 'II', data, begin)
        begin += 8
        if kind >> 16:  # up to four bytes in the place of the size
            kind, size, begin = kind & 0xFFFF, kind >> 16, begin - 4
        if kind not in KNOWN_TYPES or begin + size > len(data):
            raise ValueError(f'an element has the type {kind} and {size} bytes')
        content = data[begin : begin + size]
        if kind == COMPRESSED:
            _check_mat(zlib.decompress(content), order)
        elif kind == MATRIX and content:  # empty ones are in cells
            (flags,) = struct.unpack_from(order + 'I', content, 8)
            if flags & 0xFF == SPARSE or flags & COMPLEX:
                raise ValueError('it holds a sparse or complex array')
            _check_mat(content, order)
        # all but compressed elements fill multiples of eight bytes
        begin += size if kind == COMPRESSED else -(-size // 8) * 8


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
