#!/usr/bin/env python
"""Run torchrun, with its options, so that signals leave time to save and a process's message comes last.

torchrun kills its processes 30 seconds after SIGTERM or Ctrl-C, and SIGUSR1 would end it without them. Here
they get the signal and end themselves, see PreemptionHook. One node takes a free port unless --master_port is
given; several wait for one another, see hg_plugin/compat/rendezvous.py.
"""

import contextlib
import logging
import os
import runpy
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import PContext, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

received = []


def start_and_pass_on_signals(context, start=PContext.start):
    def pass_on(number, frame):
        received.append(number)
        for process in context.pids().values():
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(process, number)

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
    # nohup ignores SIGHUP, and a shell's script SIGINT for commands in the background
    heeded = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    start(context)  # sets torchrun's own handlers
    for number in numbers:
        signal.signal(number, pass_on if number in heeded else signal.SIG_IGN)


def main():
    os.environ['HG_PLUGIN_LAUNCHER'] = str(os.getpid())  # with which the processes end
    PContext.start = start_and_pass_on_signals
    logging.getLogger('torch.distributed').setLevel(logging.CRITICAL)
    args = run.parse_args(sys.argv[1:])
    try:
        if args.rdzv_backend == 'static' and not args.rdzv_endpoint and not args.standalone:
            nodes = run.parse_min_max_nnodes(args.nnodes)[1]
            default = args.master_port in (None, 29500)  # which one it is depends on torch's version
            port = args.master_port if not default else 29500 if nodes > 1 else 0
            # without the package around it, whose import takes seconds
            rendezvous = Path(find_spec('hg_plugin').origin).with_name('compat') / 'rendezvous.py'
            store = runpy.run_path(str(rendezvous))['meet'](args.master_addr, port, args.node_rank, nodes)
            args.master_port = store.port  # where torchrun finds this store
        run.run(args)
    except ConnectionError as error:
        sys.exit(f'error: {error}')
    except SignalException as error:  # before the processes have started
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:  # the process has printed why
            sys.exit(failure.exitcode)
        if -failure.exitcode in received:
            sys.exit(128 + received[-1])
        sys.exit(f'error: process {rank} was ended by {failure.signal_name()}; out of memory perhaps.')


if __name__ == '__main__':
    main()
