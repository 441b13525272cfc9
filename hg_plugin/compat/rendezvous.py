"""Processes on several machines find each other, or say in one sentence who is missing.

torch waits 10 to 30 minutes without a word, and for ever where another service listens on the port.
tools/dist_run.py runs this file by its path, because the package around it takes seconds to import: it may
import nothing but torch.
"""

import os
import socket
import threading
import time
from datetime import timedelta

from torch.distributed import TCPStore

# how long the first waits for the last, in seconds
DEFAULT_TIMEOUT = 120.0


def node_timeout() -> float:
    """``NODE_TIMEOUT`` of the environment, in seconds, or two minutes.

    Raises:
        ConnectionError: It is not a positive number.
    """
    text = os.environ.get('NODE_TIMEOUT') or str(DEFAULT_TIMEOUT)
    try:
        timeout = float(text)
    except ValueError:
        timeout = 0.0
    if not 0 < timeout < 1e7:
        raise ConnectionError(f'NODE_TIMEOUT is {text!r}; set it to a number of seconds, such as 600.')
    return timeout


def meet(
    address: str,
    port: int,
    rank: int,
    size: int,
    timeout: float,
    *,
    kind: str = 'node',
    serve: bool | None = None,
    port_name: str = 'PORT',
    prefix: str = 'nodes',
) -> TCPStore:
    """Open the store that all nodes, or all processes, share, and wait until all have opened it.

    Args:
        address: The machine of rank 0.
        port: Where rank 0 listens. 0 chooses a free one, for one node.
        rank: This one's number, from 0.
        size: How many there are.
        timeout: Seconds to wait for the others.
        kind: What meets, for messages: 'node' or 'process'. Defaults to 'node'.
        serve: Whether the store is opened here. Defaults to None, by rank 0.
        port_name: How the user sets the port, for messages. Defaults to 'PORT'.
        prefix: Begins the names in the store, which others use too. Defaults to 'nodes'.

    Returns:
        The store. That of rank 0 must live as long as the others use it.

    Raises:
        ConnectionError: The port is in use, the address is unknown, a rank is wrong, or one is missing.
    """
    if not 0 <= rank < size:
        raise ConnectionError(
            f'This is {kind} {rank} of {size}, which are counted from 0; correct its rank or their number.'
        )
    end = time.monotonic() + timeout
    serve = rank == 0 if serve is None else serve
    store = _open_store(address, port, serve, end, f'{kind} 0', port_name)
    where = f'{address}:{store.port}'
    try:
        _register(store, prefix, kind, where, rank, size)
        while missing := [i for i in range(size) if not store.check([f'{prefix}/{i}'])]:
            if time.monotonic() > end:
                present = [
                    f'{i} ({store.get(f"{prefix}/{i}").decode()})' for i in range(size) if i not in missing
                ]
                raise ConnectionError(
                    f'After {timeout:g} s at {where}, {_name(kind, missing)} of {size} '
                    f'{"is" if len(missing) == 1 else "are"} missing and {_name(kind, present)} '
                    f'{"is" if len(present) == 1 else "are"} here; start all with the same address, port and '
                    'number, each with a rank of its own, or set NODE_TIMEOUT to more seconds.'
                )
            time.sleep(0.1)
    except RuntimeError as error:  # torch's, when rank 0 ends
        raise ConnectionError(
            f'{kind.capitalize()} 0 at {where} has ended before all {size} were there; see its message.'
        ) from error
    return store


def _register(store: TCPStore, prefix: str, kind: str, where: str, rank: int, size: int) -> None:
    expected = int(store.compare_set(f'{prefix}/size', '', str(size)))
    if expected != size:
        raise ConnectionError(
            f'This is {kind} {rank} of {size}, but others at {where} were started as {expected}; '
            'start all with the same number.'
        )
    if store.add(f'{prefix}/{rank}/started', 1) > 1:
        raise ConnectionError(
            f'Two were started as {kind} {rank} of {size} at {where}, or one while another run uses this '
            'port; give each a rank of its own, and each run its own port.'
        )
    store.set(f'{prefix}/{rank}', socket.gethostname())


def _open_store(address: str, port: int, serve: bool, end: float, first: str, port_name: str) -> TCPStore:
    """Open a TCPStore before ``end``. Only when something listens, else torch prints stacks of its frames."""
    seconds = max(end - time.monotonic(), 1)
    if not serve:
        _wait_until_open(address, port, end, first)
    # the thread is left behind where the service on the port answers nothing: torch waits for it without end
    result: list = []
    thread = threading.Thread(target=_open, args=(address, port, serve, 2 * seconds, result), daemon=True)
    thread.start()
    thread.join(max(end - time.monotonic(), 1))
    if not result:
        raise ConnectionError(
            f'{address}:{port} is not {first} of this run: what listens there does not answer; '
            f'correct the address, or set {port_name} to another port.'
        )
    if isinstance(result[0], TCPStore):
        return result[0]
    if 'EADDRINUSE' in str(result[0]) or 'already in use' in str(result[0]):
        raise ConnectionError(
            f'Port {port} of this machine is in use, by another run or a second {first} perhaps; '
            f'set {port_name} to another port, the same for all.'
        )
    raise ConnectionError(f'No store can be opened at {address}:{port}: {str(result[0]).splitlines()[0]}')


def _open(address: str, port: int, serve: bool, seconds: float, result: list) -> None:
    try:
        store = TCPStore(
            *(address, port, None, serve, timedelta(seconds=seconds)),
            wait_for_workers=False,
            multi_tenant=True,
        )
        result.append(store)
    except Exception as error:  # it is raised in the thread that waits
        result.append(error)


def _wait_until_open(address: str, port: int, end: float, first: str) -> None:
    begin = time.monotonic()
    while True:
        try:
            # a name may be unknown until its machine is up
            return socket.create_connection((address, port), timeout=max(end - time.monotonic(), 0.1)).close()
        except OSError as error:
            if time.monotonic() + 0.2 > end:
                why = f'the host {address} is unknown' if isinstance(error, socket.gaierror) else str(error)
                raise ConnectionError(
                    f'After {time.monotonic() - begin:.0f} s, {first} is missing at '
                    f'{address}:{port} ({why}); start it, correct address and port, '
                    'or set NODE_TIMEOUT to more seconds.'
                ) from error
        time.sleep(0.2)


def _name(kind: str, ranks: list, most: int = 8) -> str:
    """``node 1``, or ``nodes 1, 2``, or ``nodes 0, 1, 2, 3, 4, 5, 6, 7 and 8 more``."""
    more = f' and {len(ranks) - most} more' if len(ranks) > most else ''
    kinds = kind if len(ranks) == 1 else 'processes' if kind == 'process' else f'{kind}s'
    return f'{kinds} {", ".join(map(str, ranks[:most]))}{more}'
