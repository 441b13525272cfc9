"""Read JSON that a user gives, and say in one sentence, with the place, what is wrong with it."""

import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from .errors import InputError

# of numbers: boxes are float32, whose sums overflow far beyond it
LIMIT = 1e9


class Json:
    """A value of a JSON file, or of Python objects of the same layout, that knows its place.

    Args:
        value: The value.
        place: Where it is, such as ``boxes.json, [3].bbox``.
    """

    def __init__(self, value: Any, place: str):
        self.value, self.place = value, place

    def fail(self, expected: str) -> NoReturn:
        raise InputError(f'{self.place} should be {expected}, but is {reprlib.repr(self.value)}; correct it.')

    @property
    def is_object(self) -> bool:
        return isinstance(self.value, Mapping)

    @property
    def is_list(self) -> bool:
        return isinstance(self.value, (Sequence, np.ndarray)) and not isinstance(self.value, (str, bytes))

    def __getitem__(self, key: str) -> 'Json':
        """The value of a key, which must be there."""
        if not self.is_object:
            self.fail('an object')
        if key not in self.value:
            self.fail(f'an object with {key}')
        return Json(self.value[key], f'{self.place}.{key}')

    def get(self, *keys: str) -> 'Json | None':
        """The value of the first of the keys that is there and not null."""
        if not self.is_object:
            self.fail('an object')
        return next((self[key] for key in keys if self.value.get(key) is not None), None)

    def __iter__(self) -> Iterator['Json']:
        """The items of a list."""
        if not self.is_list:
            self.fail('a list')
        return (Json(item, f'{self.place}[{index}]') for index, item in enumerate(self.value))

    def items(self) -> Iterator[tuple[str, 'Json']]:
        """The keys and values of an object."""
        if not self.is_object:
            self.fail('an object')
        return ((key, Json(value, f'{self.place}.{key}')) for key, value in self.value.items())

    def number(self) -> float:
        number = isinstance(self.value, (int, float, np.number)) and not isinstance(self.value, bool)
        if not (number and abs(self.value) < LIMIT):
            self.fail('a number')
        return float(self.value)

    def numbers(self, *counts: int) -> list[float]:
        """A list of so many numbers."""
        if not self.is_list or len(self.value) not in counts:
            self.fail(f'a list of {" or ".join(map(str, counts))} numbers')
        return [item.number() for item in self]

    def name(self) -> str | int:
        """A name or a number of something."""
        if not isinstance(self.value, (str, int)):
            self.fail('a name or a number')
        return self.value

    def whole_number(self) -> int:
        """A whole number of at least 0, which may be a text, as keys are."""
        if isinstance(self.value, bool) or not str(self.value).isdecimal():
            self.fail('a whole number')
        return int(self.value)


def read_json(path: str | PathLike, what: str) -> Json:
    """Read a JSON file in UTF-8, with or without a byte order mark, as editors on Windows write it.

    Args:
        path: The file.
        what: What it should hold, such as 'a list of annotations'.

    Raises:
        InputError: It does not exist, is no regular file or no JSON.
    """
    if not Path(path).is_file():
        problem = 'is a folder, a pipe or a device' if Path(path).exists() else 'does not exist'
        raise InputError(f'The file {path} {problem}; correct its path.')
    try:
        return Json(json.loads(Path(path).read_text(encoding='utf-8-sig')), str(path))
    except (OSError, ValueError, RecursionError) as error:
        reason = f'{type(error).__name__}: {error}'
        raise InputError(f'{path} cannot be read ({reason}); give a JSON file with {what}.') from error
