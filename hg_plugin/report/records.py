"""Read what a start of a training has written: a kill may have cut it off, and anyone may have changed it."""

import json
import math
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hg_plugin.engine.hooks.report_hook import read_record

# numbers by name; NaN where a row has none, infinity in place of any value that is not finite
Columns = dict[str, np.ndarray]
# kinds of events that are drawn as marks on curves
MARKED = ('divergence', 'skipped steps', 'unreadable images', 'signal', 'resumed')
# of a start
MOST_EVENTS, MOST_COLUMNS, LONGEST_TEXT = 5000, 200, 2000
COUNTS = ('start', 'resumed', 'iter', 'per_epoch', 'val_batches', 'processes', 'seconds')
OTHERS = dict(complete=bool, environment=dict, run_id=str, device=str)


@dataclass
class Event:
    """Something that was logged at an iteration, ``count`` times until iteration ``last``."""

    iteration: int
    kind: str
    text: str
    last: int
    level: str = 'INFO'
    seconds: float = 0.0  # since the start
    count: int = 1


def read_lines(path: Path) -> Iterator[dict]:
    """The objects in a file of JSON lines; none where there is no file."""
    if not path.is_file():
        return
    with open(path, 'rb') as file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict):
                yield row


def read_start(path: Path) -> dict[str, Any]:
    """What ReportHook has recorded of a start, as far as it is of the right type."""
    return {
        name: value
        for name, value in read_record(path).items()
        if (_is_count(value) if name in COUNTS else isinstance(value, OTHERS.get(name, ())))
    }


def read_events(path: Path) -> list[Event]:
    """Events in their order."""
    events = []
    for row in islice(read_lines(path), MOST_EVENTS):
        at, seconds, *texts = (row.get(name) for name in ('iter', 'seconds', 'kind', 'text', 'level'))
        if _is_count(at) and _is_count(seconds) and all(isinstance(text, str) for text in texts):
            kind, text, level = texts
            events.append(Event(at, kind, text[:LONGEST_TEXT], at, level, seconds))
    return events


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
    train, val, iteration = _Table(), _Table(), 0
    for row in read_lines(path):
        numbers = {
            key: float(value) if math.isfinite(value) else math.inf
            for key, value in row.items()
            if _is_number(value)
        }
        if 'lr' not in row and 'loss' not in row:
            val.append({**numbers, 'iter': iteration})
        elif _is_count(at := row.get('iter', row.get('step'))):
            iteration = at
            train.append({**numbers, 'iter': iteration})
    return train.columns(), val.columns()


class _Table:
    """Rows of numbers, a few bytes each: a long training logs a million."""

    def __init__(self):
        self.rows, self.arrays = 0, {}

    def append(self, row: dict) -> None:
        for key, value in row.items():
            if key in self.arrays or len(self.arrays) < MOST_COLUMNS:
                column = self.arrays.setdefault(key, array('d'))
                column.extend([math.nan] * (self.rows - len(column)))
                column.append(value)
        self.rows += 1

    def columns(self) -> Columns:
        missing = {key: [math.nan] * (self.rows - len(own)) for key, own in self.arrays.items()}
        return {'iter': np.zeros(0)} | {key: np.append(own, missing[key]) for key, own in self.arrays.items()}


def _is_number(value: object) -> bool:
    # a whole number may have thousands of digits
    return type(value) is float or type(value) is int and abs(value) < 10**300


def _is_count(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value < 10**12
