"""Processes that end with the one that started them, and loaders' workers that leave signals to it."""

import ctypes
import os
import signal
import sys
import threading
import time

# what schedulers, terminals and users send to end a run
SIGNALS = tuple(
    getattr(signal, name) for name in ('SIGTERM', 'SIGINT', 'SIGUSR1', 'SIGHUP') if hasattr(signal, name)
)
PR_SET_PDEATHSIG = 1  # of prctl, from linux/prctl.h

_serving = False


def serve_parent() -> None:
    """In a data loader's worker: leave signals to the parent, and end when it ends.

    Schedulers and terminals signal all processes of a job. A worker that ended would fail the iteration that
    its parent still finishes. torch's workers end themselves some seconds after their parent, unless they
    hold batches that nobody fetches.
    """
    global _serving
    if _serving:
        return
    _serving = True
    parent = os.getppid()
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(parent,), daemon=True).start()
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before that call
            os._exit(1)


def _obey(parent: int) -> None:
    """End on a SIGTERM of the parent, with which torch ends workers, and of nobody else."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


def end_with_parent(grace: float) -> None:
    """Get SIGTERM when the parent of this process ends, and end ``grace`` seconds later at the latest."""
    threading.Thread(target=_watch, args=(os.getppid(), grace), daemon=True).start()


def _watch(parent: int, grace: float) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os._exit(1)
