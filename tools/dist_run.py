#!/usr/bin/env python
"""torchrun, but it adds nothing to what a process has said about its end: its own traceback would bury that.

    python tools/dist_run.py --nproc_per_node=2 tools/train.py CONFIG --launcher pytorch

is what tools/dist_train.sh and tools/dist_test.sh run; all options are torchrun's.
"""

import logging
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main():
    for name in ('agent.server.api', 'multiprocessing.api'):  # who ended whom
        logging.getLogger(f'torch.distributed.elastic.{name}').setLevel(logging.CRITICAL)
    logging.getLogger('torch.distributed.run').setLevel(logging.ERROR)  # that it sets OMP_NUM_THREADS
    try:
        run.main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:  # it has printed why
            sys.exit(failure.exitcode)
        sys.exit(
            f'error: the process of rank {rank} was ended by {failure.signal_name()}; if nobody did so, it may have '
            'run out of memory.'
        )
    except SignalException as error:  # Ctrl-C, or a scheduler
        print(f'ended by {error.sigval.name}', file=sys.stderr)
        sys.exit(128 + error.sigval)


if __name__ == '__main__':
    main()
