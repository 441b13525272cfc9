"""Processes on several machines find each other, or say in one sentence who is missing.

torch waits 10 to 30 minutes without a word, and for ever where another service listens on the port.
tools/dist_run.py runs this file by its path, because the package around it takes seconds to import.
"""

import os
import socket
import time
from datetime import timedelta
from multiprocessing import TimeoutError
from multiprocessing.pool import ThreadPool

from torch.distributed import TCPStore


def meet(address: str, port: int, rank: int, size: int, kind: str = 'node') -> TCPStore:
    """Open the store that all nodes, or all processes, share, and wait until all have opened it.

    Args:
        address, port: Where rank 0 listens, as long as its store lives. Port 0 chooses a free one.
        rank, size: This one's number, from 0, and how many there are.
        kind: What meets, 'node' or 'process'. Defaults to 'node'.

    Raises:
        ConnectionError: One is missing after two minutes, or ``NODE_TIMEOUT`` seconds, a variable of the
            environment; or the port is in use, or a rank wrong.
    """
    timeout = os.environ.get('NODE_TIMEOUT') or '120'
    if not timeout.isdecimal() or len(timeout) > 6:
        raise ConnectionError(f'NODE_TIMEOUT is {timeout!r}; set it to a whole number of seconds, as 600.')
    if not 0 <= rank < size:
        raise ConnectionError(f'This is {kind} {rank} of {size}, which are counted from 0; correct its rank.')
    end = time.monotonic() + int(timeout)
    # of a process, torchrun may have opened the store
    serve = rank == 0 and os.environ.get('TORCHELASTIC_USE_AGENT_STORE') != 'True'
    hint = 'start all with the same address, port and number, or set NODE_TIMEOUT to more seconds'
    while not serve:  # only where something listens, else torch prints stacks of its frames
        try:
            socket.create_connection((address, port), timeout=1).close()
            break
        except OSError as error:  # a name may be unknown until its machine is up
            if time.monotonic() > end:
                where = f'{address}:{port} ({error})'
                raise ConnectionError(
                    f'After {timeout} s, {kind} 0 is missing at {where}; {hint}.'
                ) from error
        time.sleep(0.2)
    seconds = max(end - time.monotonic(), 1)
    arguments = address, port, None, serve, timedelta(seconds=2 * seconds), False
    try:
        with ThreadPool(1) as pool:  # left behind where what listens there answers nothing
            store = pool.apply_async(TCPStore, arguments, dict(multi_tenant=True)).get(seconds)
    except (RuntimeError, TimeoutError) as error:
        why = next(iter(str(error).splitlines()), 'what listens there does not answer')
        raise ConnectionError(f'{address}:{port} is not to be had ({why}); choose another port.') from error
    where, keys = f'{address}:{store.port}', kind + os.environ.get('TORCHELASTIC_RESTART_COUNT', '')
    try:
        if (others := int(store.compare_set(f'{keys}/size', '', str(size)))) != size:
            raise ConnectionError(f'This is {kind} {rank} of {size}, but {where} is for {others}; {hint}.')
        if store.add(f'{keys}/{rank}', 1) > 1:
            raise ConnectionError(f'Two are {kind} {rank} at {where}; correct a rank, or one of two ports.')
        while missing := [str(i) for i in range(size) if not store.check([f'{keys}/{i}'])]:
            if time.monotonic() > end:
                who = f'{kind} {", ".join(missing)} of {size}'
                raise ConnectionError(f'After {timeout} s at {where}, {who} is missing; {hint}.')
            time.sleep(0.1)
    except RuntimeError as error:  # torch's, when rank 0 ends
        raise ConnectionError(f'{kind} 0 at {where} has ended before all were there; see there.') from error
    return store
