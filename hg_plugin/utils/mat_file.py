"""Read the arrays of numbers in MAT-files.

SciPy's reader takes types and sizes from the file unchecked, and ends the process on some damaged files. This
one reads what MPII's files consist of, and raises a ValueError for anything else.

Source: MathWorks, "MAT-File Format", on Level 5.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from math import prod
from pathlib import Path

import numpy as np

# data types, by their numbers in the format
NUMBERS = {1: 'i1', 2: 'u1', 3: 'i2', 4: 'u2', 5: 'i4', 6: 'u4', 7: 'f4', 9: 'f8', 12: 'i8', 13: 'u8'}
MATRIX, COMPRESSED = 14, 15
NOTHING = (0, b'')
# array classes of numbers: double, single, 8 to 64 bits with and without sign
NUMERIC_CLASSES = range(6, 16)
COMPLEX_FLAG = 0x0800


def read_arrays(path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read the arrays of these names, where they are there and of real numbers.

    Args:
        path: A MAT-file of version 4 to 7. Version 7.3 is HDF5.
        names: Names of variables. Others are passed over.

    Returns:
        Arrays by name, of the types in which the file stores them.

    Raises:
        NotImplementedError: The file is of version 7.3.
        ValueError: The file is damaged or no MAT-file. struct, zlib and SciPy raise others.
    """
    data = Path(path).read_bytes()
    if 0 in data[:4]:  # version 4, for which SciPy's reader is written in Python
        from scipy.io import loadmat

        return loadmat(path, variable_names=names)
    order = {b'IM': '<', b'MI': '>'}.get(data[126:128])
    major = order and struct.unpack(order + 'H', data[124:126])[0] >> 8
    if major == 2:
        raise NotImplementedError('version 7.3 is HDF5')
    if major != 1:
        raise ValueError('it is no MAT-file')
    arrays = {}
    for kind, content in _elements(data, order, 128):
        if kind == COMPRESSED:
            ((kind, content),) = _elements(zlib.decompress(content), order)
        if kind != MATRIX:
            raise ValueError(f'a variable has the type {kind}')
        name, array = _matrix(content, order, names)
        if array is not None:
            arrays[name] = array
    return arrays


def _elements(data: bytes, order: str, begin: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yields type and content of the elements from byte ``begin`` on."""
    while begin < len(data):
        kind, size = struct.unpack_from(order + 'II', data, begin)
        begin += 8
        if kind >> 16:  # up to four bytes in the place of the size
            size, kind, begin = kind >> 16, kind & 0xFFFF, begin - 4
            if size > 4:
                raise ValueError('an element is longer than its place')
            end = begin + 4
        else:
            # all but compressed elements fill multiples of eight bytes
            end = begin + size + (-size % 8 if kind != COMPRESSED else 0)
        if begin + size > len(data):
            raise ValueError('it is cut off')
        yield kind, data[begin : begin + size]
        begin = end


def _matrix(data: bytes, order: str, names: Sequence[str]) -> tuple[str, np.ndarray | None]:
    """The name of a variable, and its array if it is wanted and of real numbers."""
    # what follows these four may be anything in a variable that is not wanted
    elements = _elements(data, order)
    (_, flags), (_, shape), (_, text) = (next(elements, NOTHING) for _ in range(3))
    name = text.decode('latin-1')
    (flags,) = struct.unpack_from(order + 'I', flags)
    if name not in names or flags & 0xFF not in NUMERIC_CLASSES or flags & COMPLEX_FLAG:
        return name, None
    kind, content = next(elements, NOTHING)
    shape = np.frombuffer(shape, order + 'i4').tolist()
    if kind not in NUMBERS or min(shape, default=-1) < 0:
        raise ValueError(f'{name} has the type {kind} and the shape {shape}')
    array = np.frombuffer(content, order + NUMBERS[kind])
    if len(array) != prod(shape):
        raise ValueError(f'{name} has {len(array)} numbers for the shape {shape}')
    return name, array.reshape(shape, order='F')
