"""Processes that end with the one that started them."""

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

# variable of the environment with the process of tools/dist_run.py
LAUNCHER = 'HG_PLUGIN_LAUNCHER'
# seconds to write a checkpoint after the launcher was killed
GRACE = 20

_watching = False


def serve_parent() -> None:
    """In a data loader's worker: leave signals to the parent, and end when it ends.

    Schedulers and terminals signal all processes of a job. A worker that ended would fail the iteration that
    its parent still finishes. torch's workers end themselves some seconds after their parent, unless they
    hold batches that nobody fetches.
    """
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


def end_with_launcher() -> None:
    """In a process of torchrun: get SIGTERM when torchrun ends, and end some seconds later at the latest.

    A second call changes nothing.
    """
    global _watching
    if not _watching and 'TORCHELASTIC_RUN_ID' in os.environ:
        _watching = True
        # it may have ended already; tools/dist_run.py tells its number
        launcher = int(os.environ.get(LAUNCHER, os.getppid()))
        threading.Thread(target=_watch, args=(launcher,), daemon=True).start()


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)
