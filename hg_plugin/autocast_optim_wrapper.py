"""Mixed precision for training by one key of the config."""
from contextlib import contextmanager
from typing import Optional

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from .errors import InputError


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """MMEngine's ``OptimWrapper`` whose forward passes run under autocast on GPUs.

    bfloat16 has float32's range, so that no loss has to be scaled. MMEngine's ``AmpOptimWrapper`` always has a scaler, for float16, whose
    look for infinities makes the host wait for the GPU in every step, and it refuses machines without a GPU. Here these train in float32.

    Args:
        dtype: 'bfloat16', or None for float32. Defaults to 'bfloat16'.
        **kwargs: As for ``OptimWrapper``: optimizer, clip_grad, accumulative_counts.

    Raises:
        InputError: for another dtype.
    """

    def __init__(self, dtype: Optional[str] = 'bfloat16', **kwargs):
        if dtype not in ('bfloat16', None):
            raise InputError(f"optim_wrapper.dtype is {dtype!r}; give 'bfloat16' or None, or for float16 the type AmpOptimWrapper.")
        super().__init__(**kwargs)
        self.dtype = dtype

    @contextmanager
    def optim_context(self, model: torch.nn.Module):
        enabled = self.dtype is not None and torch.cuda.is_available()
        with super().optim_context(model), torch.autocast('cuda', torch.bfloat16, enabled=enabled):
            yield
