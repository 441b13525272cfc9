"""Start the processes of a training, by any launcher, with or without GPUs."""

import atexit
import gc
import os
import re
import sys

import torch
from torch.utils.data import _utils

from .rendezvous import meet

# by launcher: what sets the environment, and its names for rank, number of processes and rank on the machine
LAUNCHERS = dict(
    pytorch=('torchrun or tools/dist_train.sh', 'RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
    slurm=('srun or tools/slurm_train.sh', 'SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_LOCALID'),
    mpi=(
        "Open MPI's mpirun",
        'OMPI_COMM_WORLD_RANK',
        'OMPI_COMM_WORLD_SIZE',
        'OMPI_COMM_WORLD_LOCAL_RANK',
    ),
)

# the one where the processes have met, until torch has its own on that port
_stores: list[torch.distributed.Store] = []


def start_processes(cfg) -> None:
    """Meet the other processes that the launcher has started, and join them with gloo where there is no GPU.

    Args:
        cfg: MMEngine's config, with ``launcher``. On a GPU, MMEngine's runner joins them.

    Raises:
        ConnectionError: The launcher did not start this process, or another process is missing.
    """
    if not torch.distributed.is_initialized():
        _set_environment(cfg.launcher)
        address, *numbers = map(os.environ.get, ('MASTER_ADDR', 'MASTER_PORT', 'RANK', 'WORLD_SIZE'))
        _stores.append(meet(address, *map(int, numbers), kind='process'))
        if not torch.cuda.is_available():
            torch.distributed.init_process_group('gloo')  # MMEngine 0.10 calls CUDA there
            _stores.clear()
            atexit.register(_end_cpu_processes)
    if not torch.cuda.is_available():  # so that the runner passes no GPU to the wrapper
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
            device_ids=None,
        )


def _set_environment(launcher: str) -> None:
    """Set the variables by which torch joins processes from those of another launcher."""
    starter, *names = LAUNCHERS[launcher]
    env = os.environ
    missing = [name for name in names if not env.get(name, '').isdecimal()]
    if missing:
        raise ConnectionError(
            f'--launcher {launcher} needs {missing[0]} in the environment, which {starter} sets; '
            'start with it, or leave out --launcher for one process.'
        )
    env.update(zip(('RANK', 'WORLD_SIZE', 'LOCAL_RANK'), map(env.get, names)))
    if launcher == 'slurm':
        env.setdefault(
            'MASTER_ADDR', first_host(env.get('SLURM_STEP_NODELIST') or env.get('SLURM_NODELIST', ''))
        )
        # one for each job, below the ports that a system gives away
        env.setdefault('MASTER_PORT', str(10000 + int(env.get('SLURM_JOB_ID', 0)) % 20000))
    if launcher == 'mpi':
        env.setdefault('MASTER_PORT', '29500')
        if env.get('OMPI_COMM_WORLD_LOCAL_SIZE') == env['WORLD_SIZE']:
            env.setdefault('MASTER_ADDR', '127.0.0.1')
    for name, what in dict(MASTER_ADDR='address', MASTER_PORT='port').items():
        if not env.get(name) or (what == 'port' and not env[name].isdecimal()):
            raise ConnectionError(
                f'{name} is {env.get(name)!r}; set it to the {what} of the first process, the same for all.'
            )


def first_host(nodes: str) -> str:
    """The first host of Slurm's short list, such as ``node[007-009,12]`` or ``a1,b[1-2]``."""
    first = re.match(r'(?:[^,\[]|\[[^\]]*\])*', nodes)[0]
    return re.sub(r'\[(\w+)[^\]]*\]', r'\1', first)


def _end_cpu_processes() -> None:
    """Ends gloo's threads while Python still runs.

    A thread that releases its last tensor after Python has ended aborts the process (pytorch/pytorch#190489).
    """
    if not torch.distributed.is_initialized():
        return
    # The threads end with the last owner of the group: the runner's wrapper of the model, in a reference
    # cycle or in the frames of a traceback.
    for name in ('last_exc', 'last_value', 'last_traceback'):
        vars(sys).pop(name, None)
    _utils._set_python_exit_flag()  # else a collected loader waits 5 s for each of its workers
    gc.collect()
    torch.distributed.destroy_process_group()
