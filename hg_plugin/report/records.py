"""Read what a start of a training has logged; a kill may have cut off the last line."""

import contextlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

# numbers by name; NaN where a row has none, infinity in place of any value that is not finite
Columns = dict[str, np.ndarray]
# kinds of events that are drawn as marks on curves
MARKED = ('divergence', 'skipped steps', 'unreadable images', 'signal', 'resumed')


@dataclass
class Event:
    """Something that was logged at an iteration, ``count`` times until iteration ``last``."""

    iteration: int
    kind: str
    text: str
    last: int
    level: str = 'INFO'
    count: int = 1


def read_lines(path: Path) -> Iterator[dict]:
    """The objects in a file of JSON lines; none where there is no file."""
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def read_events(path: Path) -> list[Event]:
    """Events in their order."""
    return [
        Event(row['iter'], row['kind'], row['text'], row['iter'], row['level']) for row in read_lines(path)
    ]


def merge(events: list[Event]) -> list[Event]:
    """Merge events that say the same but for numbers and paths, in the order of their first."""
    merged: dict[tuple, Event] = {}
    for event in events:
        key = event.kind, *(word for word in event.text.split() if not re.search(r'[\d/]', word))
        known = merged.setdefault(key, replace(event, count=0))
        known.count, known.last = known.count + event.count, event.last
    return list(merged.values())


def read_scalars(path: Path) -> tuple[Columns, Columns]:
    """Numbers that were logged of training iterations and of validations.

    Both have the column ``iter``: of a validation, the iteration of training that it follows.
    """
    train: list[dict] = []
    val: list[dict] = []
    iteration = 0
    for row in read_lines(path):
        row = {
            key: value if math.isfinite(value) else math.inf
            for key, value in row.items()
            if isinstance(value, (int, float))
        }
        trains = 'lr' in row or 'loss' in row
        iteration = row['step'] if trains else iteration
        (train if trains else val).append({**row, 'iter': iteration})
    return _columns(train), _columns(val)


def _columns(rows: list[dict]) -> Columns:
    keys = dict.fromkeys(['iter', *(key for row in rows for key in row)])
    return {key: np.array([row.get(key, math.nan) for row in rows], float) for key in keys}
