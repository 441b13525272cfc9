"""Several processes on a machine without a GPU."""

import atexit
import gc
import sys

import torch
from torch.utils.data import _utils


def start_cpu_processes(cfg) -> None:
    """Joins torchrun's processes with gloo. MMEngine 0.10 calls CUDA there.

    Args:
        cfg: MMEngine's config. ``model_wrapper_cfg`` is set, so that the runner passes no GPU to the wrapper.
    """
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
        atexit.register(_end_cpu_processes)
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
        device_ids=None,
    )


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
