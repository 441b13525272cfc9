"""Read a work directory: curves, events and settings of a training that has ended, was killed or goes on."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hg_plugin.engine.hooks.report_hook import EVENTS, RECORD, read_record
from hg_plugin.engine.resume.lock import is_locked
from hg_plugin.utils.errors import InputError

from .records import Columns, Event, read_events, read_scalars
from .settings import read_settings

# of a validation's record; all else are metrics
NO_METRICS = ('data_time', 'time', 'step', 'iter', 'epoch', 'x')


@dataclass
class Start:
    """The folder of a start or resume: the rows that are not repeated by a later one, record and events."""

    folder: Path
    record: dict[str, Any]
    train: Columns
    val: Columns
    events: list[Event]

    @property
    def first(self) -> int:
        """The iteration before the first one."""
        return self.record.get('resumed', 0)


@dataclass
class Run:
    """A training.

    Attributes:
        folder: The work directory.
        starts: Its starts, the first and those that resume it, from old to new.
        others: The number of older trainings in the folder, which this one does not resume.
        config: What it ran with.
        name: For headings and legends.
    """

    folder: Path
    starts: list[Start]
    others: int
    config: dict[str, Any]
    name: str = ''

    def setting(self, *keys: str) -> Any:
        """A setting, or None."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    def newest(self, field: str) -> Any:
        """What ReportHook has recorded of the newest start that has it, or None."""
        return next((start.record[field] for start in self.starts[::-1] if field in start.record), None)

    @property
    def per_epoch(self) -> int | None:
        return self.newest('per_epoch')

    @property
    def unit(self) -> str:
        return 'epoch' if self.per_epoch else 'iteration'

    def position(self, iteration):
        """An iteration, or several, on the axis of curves, which counts epochs or iterations."""
        return iteration / (self.per_epoch or 1)

    @cached_property
    def train(self) -> Columns:
        """What was logged of training iterations, with their position ``x``."""
        columns = _join([start.train for start in self.starts])
        return {**columns, 'x': self.position(columns['iter'])}

    @cached_property
    def val(self) -> Columns:
        """What was logged of validations."""
        columns = _join([start.val for start in self.starts])
        x = self.position(columns['iter'])
        # MMEngine writes no iteration into them, and the last one of an epoch may not be logged
        return {**columns, 'x': np.ceil(x - 1e-9) if self.per_epoch else x}

    @property
    def metrics(self) -> dict[str, float]:
        """Those of the last validation."""
        last = {key: own[-1] for key, own in self.val.items() if key not in NO_METRICS and len(own)}
        return {key: value for key, value in last.items() if not np.isnan(value)}

    @property
    def main_metric(self) -> str | None:
        return 'Mean' if 'Mean' in self.metrics else next(iter(self.metrics), None)

    @property
    def events(self) -> list[Event]:
        events = []
        for number, start in enumerate(self.starts):
            if number:
                text = f'Resumed after iteration {start.first}, in {start.folder.name}.'
                events.append(Event(start.first, 'resumed', text, start.first))
            events += start.events
        return events

    @property
    def iteration(self) -> int:
        return int(max([self.starts[-1].record.get('iter', 0), *self.train['iter'][-1:]]))

    @property
    def total(self) -> int | None:
        """Epochs or iterations that the config asks for."""
        return self.setting('train_cfg', 'max_epochs' if self.per_epoch else 'max_iters')

    @property
    def hours(self) -> float:
        return sum(start.record.get('seconds', 0) for start in self.starts) / 3600

    @property
    def batch(self) -> int | None:
        """Images in an iteration, of all processes."""
        size = self.setting('train_dataloader', 'batch_size')
        return size and size * (self.newest('processes') or 1)

    @property
    def images_per_second(self) -> float | None:
        """Over the latest tenth of the training, without validation and checkpoints."""
        seconds = self.train.get('time', np.zeros(0))[-max(10, len(self.train['x']) // 10) :]
        seconds = seconds[np.isfinite(seconds) & (seconds > 0)]
        return self.batch / seconds.mean() if self.batch and len(seconds) else None

    @property
    def status(self) -> str:
        last, total = self.starts[-1], self.total
        if last.record.get('complete') or total and self.position(self.iteration) >= total:
            return 'complete'
        if is_locked(self.folder):
            return 'going on'
        if any(event.kind == 'signal' for event in last.events):
            return 'ended by a signal'
        if last.events and (last.events[-1].kind, last.events[-1].level) == ('divergence', 'ERROR'):
            return 'diverged'
        return 'incomplete'


def _join(parts: list[Columns]) -> Columns:
    """Columns below each other."""
    keys = dict.fromkeys(key for part in parts for key in part)
    return {
        key: np.concatenate([part.get(key, np.full(len(part['iter']), np.nan)) for part in parts])
        for key in keys
    }


def read_run(work_dir: str | Path) -> Run:
    """Read a work directory.

    Raises:
        InputError: It is none, or no iteration of a training was logged there.
    """
    folder = Path(work_dir)
    if not folder.is_dir():
        raise InputError(f'The work directory {work_dir} does not exist; give the folder of a training.')
    found = [
        Start(
            place,
            read_record(place / RECORD),
            *read_scalars(place / 'vis_data/scalars.json'),
            read_events(place / EVENTS),
        )
        for place in sorted(
            path.parent.parent for path in folder.glob('*/vis_data/config.py') if path.is_file()
        )
    ]
    starts: list[Start] = []
    others = 0
    # names of folders are times of a clock that may have been set back, or moved to another zone
    for start in sorted(found, key=lambda start: start.record.get('start', -1)):
        if not (start.record or len(start.train['iter'])):  # of a test
            continue
        ids = [own.record.get('run_id') for own in (start, *starts[-1:])]
        if starts and (start.first == 0 or len({*ids}) > 1):  # a training of its own
            starts, others = [], others + 1
        for earlier in starts:  # killed after the checkpoint that was resumed
            for part in ('train', 'val'):
                columns = getattr(earlier, part)
                kept = columns['iter'] <= start.first
                setattr(earlier, part, {key: own[kept] for key, own in columns.items()})
        start.val['iter'] = np.maximum(start.val['iter'], start.first)
        starts.append(start)
    if not starts:
        raise InputError(
            f'{work_dir} holds no log of a training (TIME/vis_data/scalars.json); give its work directory.'
        )
    config = read_settings(starts[-1].folder / 'vis_data/config.py')
    return Run(folder, starts, others, config, folder.resolve().name)
