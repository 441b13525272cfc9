"""Read what MMEngine's text log of a training says: progress, warnings, environment."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

LINE = re.compile(r'(\d{4}/\d\d/\d\d \d\d:\d\d:\d\d) - \S+ - ([A-Z]+) - (.*)')
PROGRESS = re.compile(r'(Epoch|Iter)\((train|val)\)\s*(?:\[\s*(\d+)\])?\[\s*(\d+)/\s*(\d+)\]')
RESUMED = re.compile(r'resumed epoch: (\d+), iter: (\d+)')
SAVED = re.compile(r'Saving checkpoint at (\d+) (epoch|iteration)s')
# the line of ReportHook at the end of a training
COMPLETE = 'Curves, persons and warnings of this run'
# what a line of the log is about, by what it says; the first that fits counts
KINDS = {
    'collapse or divergence': r'heatmaps peak at|[Tt]raining has diverged',
    'skipped steps': 'loss or gradient that is not finite',
    'unreadable images': 'unreadable images|Trained on the next person',
    'checkpoints': 'is not written|was not written|cannot be written|is not complete|Resuming from|'
    'of an earlier run|the next validation saves one',
    'ended by a signal': 'Ended by a signal',
}
# kinds of lines that are drawn as marks on curves
MARKED = ('collapse or divergence', 'skipped steps', 'unreadable images', 'ended by a signal', 'resumed')
OTHER = 'other'


@dataclass
class Event:
    """Something that the log says at an iteration, ``count`` times until iteration ``last``."""

    time: str
    iteration: int
    kind: str
    text: str
    last: int
    count: int = 1


@dataclass
class Log:
    """One start or resume of a training."""

    resumed: int | None = None  # the iteration
    per_epoch: int | None = None  # iterations; None in a training by iterations
    iteration: int = 0  # the last that the log knows of
    val_batches: int | None = None
    seconds: float = 0.0
    complete: bool = False
    environment: str = ''
    events: list[Event] = field(default_factory=list)


def read_log(path: Path) -> Log:
    """Read a log, which may end anywhere; an empty one where there is no file."""
    log = Log()
    try:
        lines = path.read_text(errors='replace').splitlines()
    except OSError:
        return log
    first = last = None
    event: Event | None = None
    environment: list[str] | None = []  # until the config follows
    for line in lines:
        match = LINE.match(line)
        if not match:  # goes on with the line before
            if event:
                event.text += f'\n{line}'
            elif environment is not None:
                environment.append(line)
            continue
        last, level, text = match.groups()
        first, event = first or last, None
        if environment is not None and text.startswith('Config:'):
            log.environment, environment = _shorten('\n'.join(environment)), None
        if level in ('WARNING', 'ERROR', 'CRITICAL') or text.startswith('Ended by a signal'):
            kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, text)), OTHER)
            event = Event(last, log.iteration, kind, text, log.iteration)
            log.events.append(event)
        else:
            _progress(log, text)
    if first:
        begin, end = (datetime.strptime(time, '%Y/%m/%d %H:%M:%S') for time in (first, last))
        log.seconds = (end - begin).total_seconds()
    return log


def _progress(log: Log, text: str) -> None:
    if match := PROGRESS.match(text):
        unit, phase, epoch, done, total = match.groups()
        if phase == 'val':
            log.val_batches = int(total)
        elif unit == 'Iter':
            log.iteration = int(done)
        elif epoch:
            log.per_epoch = int(total)
            log.iteration = (int(epoch) - 1) * log.per_epoch + int(done)
    elif match := RESUMED.search(text):
        log.resumed = log.iteration = int(match[2])
    elif match := SAVED.match(text):
        log.iteration = max(log.iteration, int(match[1]) * (log.per_epoch or 1 if match[2] == 'epoch' else 1))
    elif text.startswith(COMPLETE):
        log.complete = True


def _shorten(environment: str) -> str:
    """Without rules, and without the list of how torch was compiled."""
    lines = [line for line in environment.splitlines() if not line.startswith(('-----', '  - '))]
    return '\n'.join(line.removeprefix('    ') for line in lines if line.strip() and 'compiling' not in line)


def merge(events: list[Event]) -> list[Event]:
    """Merge events that say the same but for numbers and paths, in the order of their first."""
    merged: dict[tuple, Event] = {}
    for event in events:
        key = event.kind, re.sub(r'\S*[\d/]\S*', '#', event.text)
        known = merged.get(key)
        if known:
            known.count, known.last = known.count + event.count, event.last
        else:
            merged[key] = Event(**vars(event))
    return list(merged.values())
