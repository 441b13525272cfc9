"""Read a work directory: curves, log and config of a training that has ended, was killed or goes on."""

import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

from hg_plugin.engine.hooks.report_hook import RECORD
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.lock import is_locked

from .log import Event, Log, read_log

# of a validation's record; all else are metrics
NO_METRICS = ('data_time', 'time', 'step', 'iter', 'epoch', 'x')


@dataclass
class Start:
    """The folder of a start or resume: the records that are not repeated by a later one."""

    folder: Path
    log: Log
    train: list[dict]
    val: list[dict]
    record: dict

    @property
    def first(self) -> int:
        """The iteration before the first one."""
        return self.log.resumed or 0


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
    config: Config
    name: str = field(default='')

    @property
    def per_epoch(self) -> int | None:
        return next((start.log.per_epoch for start in reversed(self.starts) if start.log.per_epoch), None)

    @property
    def unit(self) -> str:
        return 'epoch' if self.per_epoch else 'iteration'

    def position(self, iteration: int) -> float:
        """An iteration on the axis of curves, which counts epochs or iterations."""
        return iteration / (self.per_epoch or 1)

    @cached_property
    def train(self) -> list[dict]:
        """Records of training iterations, with their position ``x``."""
        return [{**row, 'x': self.position(row['iter'])} for start in self.starts for row in start.train]

    @cached_property
    def val(self) -> list[dict]:
        """Records of validations. MMEngine writes no iteration into them: they follow one of training."""
        rows = []
        for row in (row for start in self.starts for row in start.val):
            x = self.position(row['iter'])
            rows.append({**row, 'x': math.ceil(x - 1e-9) if self.per_epoch else x})
        return rows

    @property
    def metrics(self) -> dict[str, float]:
        """Those of the last validation."""
        return {k: v for k, v in self.val[-1].items() if k not in NO_METRICS} if self.val else {}

    @property
    def main_metric(self) -> str | None:
        return 'Mean' if 'Mean' in self.metrics else next(iter(self.metrics), None)

    @property
    def events(self) -> list[Event]:
        events = []
        for number, start in enumerate(self.starts):
            if number:
                at = start.first
                time = start.folder.name
                text = f'Resumed after iteration {at}, in {start.folder.name}.'
                events.append(Event(time, at, 'resumed', text, at))
            events += start.log.events
        return events

    @property
    def record(self) -> dict:
        """What ReportHook has kept of the newest start."""
        return next((start.record for start in reversed(self.starts) if start.record), {})

    @property
    def iteration(self) -> int:
        logged = [row['iter'] for row in self.train[-1:]]
        last = max([start.log.iteration for start in self.starts] + logged)
        return max(last, round(self.val[-1]['x'] * (self.per_epoch or 1)) if self.val else 0)

    @property
    def total(self) -> int | None:
        """Epochs or iterations that the config asks for."""
        return (self.config.get('train_cfg') or {}).get('max_epochs' if self.per_epoch else 'max_iters')

    @property
    def hours(self) -> float:
        return sum(start.log.seconds for start in self.starts) / 3600

    @property
    def batch(self) -> int | None:
        """Images in an iteration, of all processes."""
        size = (self.config.get('train_dataloader') or {}).get('batch_size')
        return size and size * self.record.get('processes', 1)

    @property
    def images_per_second(self) -> float | None:
        """Over the latest tenth of the training, without validation and checkpoints."""
        rows = [row['time'] for row in self.train[-max(10, len(self.train) // 10) :] if row.get('time')]
        return self.batch * len(rows) / sum(rows) if self.batch and rows else None

    @property
    def status(self) -> str:
        log, total = self.starts[-1].log, self.total
        if log.complete or total and self.position(self.iteration) >= total:
            return 'complete'
        if is_locked(self.folder):
            return 'going on'
        kinds = [event.kind for event in log.events]
        if 'ended by a signal' in kinds:
            return 'ended by a signal'
        if log.events and 'iverged' in log.events[-1].text:
            return 'diverged'
        return 'incomplete'


def read_run(work_dir: str | Path) -> Run:
    """Read a work directory.

    Raises:
        InputError: It is none, or no iteration of a training was logged there.
    """
    folder = Path(work_dir)
    if not folder.is_dir():
        raise InputError(f'The work directory {work_dir} does not exist; give the folder of a training.')
    starts: list[Start] = []
    others = 0
    for place in sorted(path.parent.parent for path in folder.glob('*/vis_data/config.py')):
        start = Start(place, read_log(place / f'{place.name}.log'), *_read_scalars(place), _read_json(place))
        if not (start.train or start.record):  # of a test
            continue
        first = start.first
        if first == 0 and starts:  # a training of its own
            starts, others = [], others + 1
        for earlier in starts:  # killed after the checkpoint that was resumed
            earlier.train = [row for row in earlier.train if row['iter'] <= first]
            earlier.val = [row for row in earlier.val if row['iter'] <= first]
        for row in start.val:
            row['iter'] = max(row['iter'], first)
        starts.append(start)
    if not starts:
        raise InputError(
            f'{work_dir} holds no log of a training (TIME/vis_data/scalars.json); give its work directory.'
        )
    return Run(folder, starts, others, _read_config(starts[-1].folder), folder.resolve().name)


def _read_scalars(place: Path) -> tuple[list[dict], list[dict]]:
    """Records of training and validation, the latter with the iteration of training that they follow."""
    train, val = [], []
    iteration = 0
    path = place / 'vis_data/scalars.json'
    for line in path.read_text(errors='replace').splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:  # cut off by a kill
            continue
        if 'lr' in row or 'loss' in row:
            iteration = row['iter'] = int(row.get('iter', row.get('step', 0)))
            train.append(row)
        else:
            val.append({**row, 'iter': iteration})
    return train, val


def _read_json(place: Path) -> dict:
    try:
        return json.loads((place / RECORD).read_text())
    except (OSError, ValueError):  # the training did not have the hook
        return {}


def _read_config(place: Path) -> Config:
    try:
        return Config.fromfile(place / 'vis_data/config.py', import_custom_modules=False)
    except Exception as error:  # a config is a program and may raise anything
        raise InputError(f'{place}/vis_data/config.py cannot be read ({error}); restore it.') from error
