"""Process many items in several processes."""

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence

import cv2

from .progress import Progress


def _init_worker() -> None:
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
    pool = multiprocessing.Pool(num_workers, _init_worker) if num_workers > 1 else contextlib.nullcontext()
    with pool, Progress(len(tasks), what) as progress:
        if num_workers > 1:
            chunk = max(1, min(8, len(tasks) // (4 * num_workers)))  # few tasks are spread over all processes
            results = pool.imap(function, tasks, chunk)
        else:
            results = map(function, tasks)
        for result in results:
            yield result
            progress.update(note())
