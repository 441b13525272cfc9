#!/usr/bin/env python
"""Run torchrun so that the message of a failed process comes last, and that signals leave time to save.

python tools/dist_run.py --nproc_per_node=2 tools/train.py CONFIG --launcher pytorch

tools/dist_train.sh and tools/dist_test.sh call it. The options are torchrun's. On one node, a free port is
chosen unless --master_port is given. Several nodes wait for one another for NODE_TIMEOUT seconds.

torchrun kills its processes 30 seconds after SIGTERM or Ctrl-C, and SIGUSR1 would end it without them. Here
they get the signal and end themselves: see PreemptionHook.
"""

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
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

# without the package around it, whose import takes seconds
RENDEZVOUS = Path(find_spec('hg_plugin').origin).with_name('compat') / 'rendezvous.py'

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
    args = run.parse_args(sys.argv[1:])
    try:
        if args.rdzv_backend == 'static' and not args.rdzv_endpoint and not args.standalone:
            meet_first(args)
        run.run(args)
    except ConnectionError as error:
        sys.exit(f'error: {error}')
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


def meet_first(args):
    """Open the store of torchrun's static rendezvous, where all nodes have met."""
    rendezvous = runpy.run_path(str(RENDEZVOUS))
    nodes = run.parse_min_max_nnodes(args.nnodes)[1]
    given = any(arg.replace('-', '_').startswith('__master_port') for arg in sys.argv)
    port = args.master_port if given else 29500 if nodes > 1 else 0
    timeout = rendezvous['node_timeout']()
    store = rendezvous['meet'](args.master_addr, port, args.node_rank, nodes, timeout)
    args.master_port = store.port

    def use_store(self, next_rendezvous=StaticTCPRendezvous.next_rendezvous):
        self._store = store  # torch opens one where there is none
        return next_rendezvous(self)

    StaticTCPRendezvous.next_rendezvous = use_store


if __name__ == '__main__':
    main()
