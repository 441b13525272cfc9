"""Data loaders whose workers leave signals to the training, and whose failure ends it as a signal does."""

import contextlib
import errno
import functools
import itertools
import multiprocessing.connection
import multiprocessing.queues
import os
import signal
import sys
from collections.abc import Callable, Iterator

import torch
from torch.utils.data import DataLoader, IterableDataset

from .processes import serve_parent

# what a system lacks, by the error number: what to do
ADVICE = {
    errno.EMFILE: 'too many files are open; raise the limit (ulimit -n), or lower num_workers',
    errno.ENOSPC: '/dev/shm is full; enlarge it (docker run --shm-size=1g), or lower num_workers',
    errno.ENOMEM: 'memory runs out; lower num_workers or batch_size',
}


class GuardedLoader(DataLoader):
    """A ``DataLoader`` that loads on in its own process where its workers fail.

    Workers die if memory, shared memory or open files run out. The batch that is missing, and those that
    follow, are then the same, but slower. :meth:`guard` makes one.

    Attributes:
        waits (bool): Whether a batch is being waited for.
        on_failure: Called with what happened, in words, when workers failed and the loader goes on; or with
            the error that it then raises, of a dataset for instance.
    """

    waits = False
    on_failure: Callable[[str | Exception], None]

    @classmethod
    def guard(cls, loader: DataLoader, on_failure: Callable[[str | Exception], None]) -> None:
        """Make a loader a guarded one, before its workers start."""
        if type(loader) is DataLoader:
            loader.__class__ = cls
            loader._iterator = None  # persistent workers that have started already
            loader.worker_init_fn = functools.partial(_start_worker, loader.worker_init_fn)
        if isinstance(loader, cls):
            loader.on_failure = on_failure

    def __iter__(self) -> Iterator:
        try:
            yield from self._batches()
        except Exception as error:
            self.on_failure(error)
            raise

    def _batches(self) -> Iterator:
        sampler = getattr(self.batch_sampler, 'sampler', self.sampler)
        start, done, batches = getattr(sampler, 'start', None), 0, self._iterator
        has_workers = self.num_workers > 0  # or a worker that ends is another loader's, which will be told
        try:
            self.waits = has_workers
            batches = super().__iter__()
            for batch in batches:
                self.waits = False
                yield batch
                self.waits = has_workers
                done += 1
                if has_workers:
                    torch._C._error_if_any_worker_fails()
            return
        except Exception as error:
            self.waits = False  # or the news of a worker's end would interrupt what follows
            if not has_workers or isinstance(self.dataset, IterableDataset):
                raise
            problem = _explain(error, getattr(batches, '_workers', []))
        finally:
            self.waits = False
        batches = self._iterator = None  # ends the other workers, and closes files
        if start is not None:  # of SeededSampler: the epoch's first sample
            sampler.start = start
        for indices in itertools.islice(self.batch_sampler, done, None):
            batch = self._load(indices)
            if problem:
                self.on_failure(problem)
                problem = ''
            yield batch
        if problem:
            self.on_failure(problem)

    def _load(self, indices: list):
        fetch = getattr(self.dataset, '__getitems__', None)
        return self.collate_fn(fetch(indices) if fetch else [self.dataset[index] for index in indices])


def _start_worker(init: Callable | None, number: int) -> None:
    serve_parent()
    sys.excepthook = _tell
    # a batch that the worker cannot send would be waited for, without an end
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]
    if init:
        init(number)


def _tell(kind: type[BaseException], error: BaseException, traceback) -> None:
    """Print an error of a thread, but not that the parent broke off: another worker's end interrupts it."""
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, traceback)


def _end_worker(error: Exception, _) -> None:
    os._exit(_number(error) or 1)


def _number(error: Exception) -> int | None:
    """The number of the system's error behind one of torch, which has it in words."""
    known = (number for number in ADVICE if os.strerror(number) in str(error))
    return getattr(error, 'errno', None) or next(known, None)


def _explain(error: Exception, workers: list) -> str:
    """What happened to a loader, and what to do."""
    ends = {worker.sentinel: worker for worker in workers}
    with contextlib.suppress(RuntimeError):  # which torch raises when it is told of a worker's end
        for sentinel in multiprocessing.connection.wait([*ends], timeout=1):
            ends[sentinel].join()  # a process closes its files before it has an exit code
    for number, worker in enumerate(workers):
        what = f'Worker {number} of a data loader (process {worker.pid})'
        if worker.exitcode and worker.exitcode < 0:
            name = signal.Signals(-worker.exitcode).name
            if name == 'SIGBUS':
                return f'{what} was ended by SIGBUS: {ADVICE[errno.ENOSPC]}'
            return f'{what} was ended by {name}, as by the system where {ADVICE[errno.ENOMEM]}'
        if worker.exitcode:
            return f'{what} ended: {ADVICE.get(worker.exitcode, f"exit code {worker.exitcode}")}'
    first = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
    return f'A data loader failed: {ADVICE.get(_number(error), first)}'
