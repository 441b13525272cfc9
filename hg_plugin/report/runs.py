"""Read a work directory: curves, events and settings of a training that has ended, was killed or goes on."""

import contextlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from hg_plugin.engine.hooks.report_hook import EVENTS, RECORD
from hg_plugin.engine.resume.lock import is_locked
from hg_plugin.utils.errors import InputError

from .settings import read_settings

# of a validation's row; all else are metrics
NO_METRICS = ('data_time', 'time', 'step', 'iter', 'epoch', 'x')

EVENT = {'iter', 'level', 'kind', 'text'}
# the types of what a record holds, beside text
FIELDS: dict[str, Any] = dict(
    **dict.fromkeys(('start', 'resumed', 'iter', 'processes', 'complete'), int),
    per_epoch=(int, type(None)),
    seconds=(int, float),
    environment=dict,
)


@dataclass
class Run:
    """A training, with its resumes."""

    folder: Path  # the work directory
    name: str  # for headings and legends
    others: int = 0  # older trainings in the folder, which this one does not resume
    starts: list[str] = field(default_factory=list)  # folders of the first start and of the resumes
    record: dict[str, Any] = field(default_factory=dict)  # of ReportHook, the newest value of each field
    seconds: float = 0  # how long it has run
    # rows that were logged of training iterations and of validations; ``x`` counts epochs or iterations
    train: list[dict[str, float]] = field(default_factory=list)
    val: list[dict[str, float]] = field(default_factory=list)
    events: list[dict] = field(default_factory=list)  # with the keys of EVENT
    config: dict[str, Any] = field(default_factory=dict)

    def setting(self, place: str) -> Any:
        """A setting such as ``train_cfg.max_epochs``, or None."""
        value: Any = self.config
        for key in place.split('.'):
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @property
    def unit(self) -> str:
        return 'epoch' if self.record.get('per_epoch') else 'iteration'

    def position(self, iteration: int) -> float:
        """An iteration on the axis of curves."""
        return iteration / (self.record.get('per_epoch') or 1)

    @property
    def metrics(self) -> dict[str, float]:
        """Those of the last validation."""
        return {key: value for row in self.val[-1:] for key, value in row.items() if key not in NO_METRICS}

    @property
    def main_metric(self) -> str | None:
        return 'Mean' if 'Mean' in self.metrics else next(iter(self.metrics), None)

    @property
    def iteration(self) -> int:
        return max(self.record.get('iter', 0), *(row['iter'] for row in self.train[-1:]), 0)

    @property
    def total(self) -> int | None:
        """Epochs or iterations that the config asks for."""
        return self.setting('train_cfg.max_epochs' if self.unit == 'epoch' else 'train_cfg.max_iters')

    @property
    def batch(self) -> int | None:
        """Images in an iteration, of all processes."""
        size = self.setting('train_dataloader.batch_size')
        return size and size * self.record.get('processes', 1)

    @property
    def images_per_second(self) -> float | None:
        """Over the latest tenth of the training, without validation and checkpoints."""
        seconds = [row['time'] for row in self.train[-max(10, len(self.train) // 10) :] if row.get('time')]
        return self.batch / np.mean(seconds) if self.batch and seconds else None

    @property
    def status(self) -> str:
        if self.record.get('complete') or self.total and self.position(self.iteration) >= self.total:
            return 'complete'
        if is_locked(self.folder):
            return 'going on'
        latest = [*takewhile(lambda event: event['kind'] != 'resumed', reversed(self.events))]
        if any(event['kind'] == 'signal' for event in latest):
            return 'ended by a signal'
        if latest and (latest[0]['kind'], latest[0]['level']) == ('divergence', 'ERROR'):
            return 'diverged'
        return 'incomplete'


def read_run(work_dir: str | Path) -> Run:
    """Read the newest training in a work directory.

    Raises:
        InputError: It is none, or no iteration of a training was logged there.
    """
    work_dir = Path(work_dir)
    if not work_dir.is_dir():
        raise InputError(f'The work directory {work_dir} does not exist; give the folder of a training.')
    folders = sorted(path.parents[1] for path in work_dir.glob('*/vis_data/config.py'))
    run = None
    # names of folders are times of a clock that may have been set back, or moved to another zone
    for folder in sorted(folders, key=lambda folder: _read_record(folder).get('start', -1)):
        record = _read_record(folder)
        first = record.get('resumed', 0)
        train, val = _read_scalars(folder / 'vis_data/scalars.json', first)
        if not (record or train):  # of a test
            continue
        if run is None or first == 0 or record.get('run_id') != run.record.get('run_id'):
            run = Run(work_dir, work_dir.resolve().name, others=run.others + 1 if run else 0)
        else:
            text = f'Resumed after iteration {first}, in {folder.name}.'
            run.events.append(dict(iter=first, level='INFO', kind='resumed', text=text))
        run.starts.append(folder.name)
        run.record |= record
        run.seconds += record.get('seconds', 0)
        # an earlier start may have gone on after the checkpoint that was resumed, until it was killed
        run.train = [row for row in run.train if row['iter'] <= first] + train
        run.val = [row for row in run.val if row['iter'] <= first] + val
        run.events += (line for line in _read_lines(folder / EVENTS) if EVENT <= line.keys())
    if run is None:
        raise InputError(
            f'{work_dir} holds no log of a training (TIME/vis_data/scalars.json); give its work directory.'
        )
    run.config = read_settings(work_dir / run.starts[-1] / 'vis_data/config.py')
    for row in run.train:
        row['x'] = run.position(row['iter'])
    for row in run.val:
        x = run.position(row['iter'])
        # MMEngine writes no iteration into them, and the last one of an epoch may not be logged
        row['x'] = math.ceil(x - 1e-9) if run.unit == 'epoch' else x
    return run


def _read_record(folder: Path) -> dict[str, Any]:
    """What ReportHook has written of a start; empty where it has not, and without fields that are damaged."""
    path = folder / RECORD
    record = next(_objects([path.read_bytes()] if path.is_file() else []), {})
    return {key: value for key, value in record.items() if isinstance(value, FIELDS.get(key, str))}


def _objects(texts: Iterable[bytes]) -> Iterator[dict]:
    """The objects of JSON, without what a kill has cut off or what is none."""
    for text in texts:
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(text)
            if isinstance(value, dict):
                yield value


def _read_lines(path: Path) -> Iterator[dict]:
    return _objects(path.read_bytes().splitlines() if path.is_file() else ())


def _read_scalars(path: Path, iteration: int) -> tuple[list[dict], list[dict]]:
    """Rows of training iterations and of validations; ``iter`` of one is the iteration that it follows."""
    train: list[dict] = []
    val: list[dict] = []
    for row in _read_lines(path):
        row = {key: value for key, value in row.items() if isinstance(value, (int, float))}
        trains = 'lr' in row or 'loss' in row
        if not trains:
            val.append({**row, 'iter': iteration})
        elif isinstance(row.get('step'), int):
            iteration = row['step']
            train.append({**row, 'iter': iteration})
    return train, val


def merge(events: list[dict]) -> list[dict]:
    """Merge events that say the same but for numbers and paths, in the order of their first.

    Each has the ``count`` of those, and ``last``, the iteration of the last one.
    """
    merged: dict[tuple, dict] = {}
    for event in events:
        key = event['kind'], *(word for word in event['text'].split() if not re.search(r'[\d/]', word))
        known = merged.setdefault(key, {**event, 'count': 0})
        known |= dict(count=known['count'] + 1, last=event['iter'])
    return list(merged.values())
