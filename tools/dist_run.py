#!/usr/bin/env python
"""Run torchrun without its report of a failed process, so that the message of that process comes last.

python tools/dist_run.py --nproc_per_node=2 tools/train.py CONFIG --launcher pytorch

tools/dist_train.sh and tools/dist_test.sh call it. The options are torchrun's.
"""

import logging
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError


def main():
    for name in ('agent.server.api', 'multiprocessing.api'):  # which process ended which
        logging.getLogger(f'torch.distributed.elastic.{name}').setLevel(logging.CRITICAL)
    logging.getLogger('torch.distributed.run').setLevel(logging.ERROR)  # that it sets OMP_NUM_THREADS
    try:
        run.main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:  # the process has printed why
            sys.exit(failure.exitcode)
        sys.exit(
            f'error: the process of rank {rank} was ended by {failure.signal_name()}; '
            'it may have run out of memory.'
        )
    except SignalException as error:  # Ctrl-C, or a scheduler
        print(f'ended by {error.sigval.name}', file=sys.stderr)
        sys.exit(128 + error.sigval)


if __name__ == '__main__':
    main()
