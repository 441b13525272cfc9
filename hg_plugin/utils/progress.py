"""Show how far a long loop has come and how long it will take, in one process or several."""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import cv2
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar


class Progress:
    """A bar on a terminal; elsewhere, as in a log file, a line every ten seconds and a last one.

    Args:
        total: Number of steps; 0 if it is not known.
        what: What the steps are called, in the plural: 'images'.
    """

    def __init__(self, total: int, what: str):
        text = TextColumn('{task.description}', markup=False)
        columns = MofNCompleteColumn(), text, TimeElapsedColumn(), TimeRemainingColumn(), BarColumn()
        self.bar = Bar(
            *columns,
            console=Console(stderr=True),
            auto_refresh=False,  # no thread: data loaders fork meanwhile
            redirect_stdout=sys.stdout.isatty(),  # to above the bar, but not what goes to a file
        )
        self.what, self.task = what, self.bar.add_task(what, total=total or None)
        self.interval = 0.1 if self.bar.console.is_terminal else 10.0  # seconds
        self.shown = time.monotonic()

    def __enter__(self) -> 'Progress':
        self.bar.start()
        return self

    def __exit__(self, *error) -> None:
        self.bar.stop()

    def update(self, note: str = '') -> None:
        """Count a step. A ``note``, such as the disk space used so far, is shown behind the count."""
        self.bar.update(self.task, advance=1, description=', '.join(filter(None, (self.what, note))))
        if time.monotonic() - self.shown >= self.interval:
            self.shown = time.monotonic()
            if self.bar.console.is_terminal:
                self.bar.refresh()
            else:
                self.bar.console.print(self.bar.get_renderable())


def init_worker(*_) -> None:
    """What a process of a pool begins with."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers, without a traceback from each
    cv2.setNumThreads(0)  # there is a process for every core already


def imap_with_progress(
    function: Callable,
    tasks: Sequence,
    num_workers: int | None,
    what: str,
    note: Callable[[], str] = lambda: '',
) -> Iterator:
    """Yield ``function(task)`` for every task, in order, and show progress.

    Args:
        function: Defined at the top level of a module, or a ``functools.partial`` of such a function.
        tasks: Its arguments.
        num_workers: Number of processes. 1 runs everything in this process; None means one per CPU core.
        what: The plural of a task for the progress line, such as 'images'.
        note: Called after each result was used, for a text behind the count. Defaults to no text.
    """
    num_workers = num_workers or os.cpu_count() or 1
    pool = multiprocessing.Pool(num_workers, init_worker) if num_workers > 1 else contextlib.nullcontext()
    with pool, Progress(len(tasks), what) as progress:
        if num_workers > 1:
            chunk = max(1, min(8, len(tasks) // (4 * num_workers)))  # few tasks are spread over all processes
            results = pool.imap(function, tasks, chunk)
        else:
            results = map(function, tasks)
        for result in results:
            yield result
            progress.update(note())
