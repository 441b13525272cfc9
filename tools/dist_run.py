#!/usr/bin/env python
"""Run torchrun so that the message of a failed process comes last, and that signals leave time to save.

python tools/dist_run.py --nproc_per_node=2 tools/train.py CONFIG --launcher pytorch

tools/dist_train.sh and tools/dist_test.sh call it. The options are torchrun's. torchrun kills its processes
30 seconds after SIGTERM or Ctrl-C, and SIGUSR1 would end it without them. Here they get the signal and end
themselves: see PreemptionHook.
"""

import logging
import os
import signal
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import PContext, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
# nohup ignores SIGHUP, and a shell's script SIGINT for commands in the background
ignored = [number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN]
received: list[int] = []
start = PContext.start


def start_and_pass_on_signals(context):
    start(context)  # sets torchrun's own handlers

    def pass_on(number, frame):
        received.append(number)
        for process in context.pids().values():
            try:
                os.kill(process, number)
            except ProcessLookupError:
                pass  # it has ended

    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN if number in ignored else pass_on)


def main():
    os.environ['HG_PLUGIN_LAUNCHER'] = str(os.getpid())  # with which the processes end
    PContext.start = start_and_pass_on_signals
    for name in ('agent.server.api', 'multiprocessing.api'):  # which process ended which
        logging.getLogger(f'torch.distributed.elastic.{name}').setLevel(logging.CRITICAL)
    logging.getLogger('torch.distributed.run').setLevel(logging.ERROR)  # that it sets OMP_NUM_THREADS
    try:
        run.main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:  # the process has printed why
            sys.exit(failure.exitcode)
        if -failure.exitcode in received:
            end(received[-1])
        sys.exit(
            f'error: the process of rank {rank} was ended by {failure.signal_name()}; '
            'it may have run out of memory.'
        )
    except SignalException as error:  # before the processes have started
        end(error.sigval)


def end(number: int):
    print(f'ended by {signal.Signals(number).name}', file=sys.stderr)
    sys.exit(128 + number)


if __name__ == '__main__':
    main()
