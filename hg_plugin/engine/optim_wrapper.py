"""Mixed precision for training by one key of the config."""

import logging
from contextlib import contextmanager
from functools import cached_property

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from hg_plugin.utils.errors import InputError


def cpu_has_bfloat16() -> bool:
    """Whether the CPU computes in bfloat16; False also where torch has no way to tell, as before ``torch.cpu.get_capabilities``."""
    capabilities = getattr(torch.cpu, 'get_capabilities', dict)()
    return bool(capabilities.get('avx512_bf16'))


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """MMEngine's ``OptimWrapper`` whose forward passes run under autocast, where the machine has instructions for it.

    bfloat16 has float32's range, so that no loss has to be scaled. MMEngine's ``AmpOptimWrapper`` always has a scaler, for float16, whose
    look for infinities makes the host wait for the GPU in every step, and it refuses machines without a GPU. Here CPUs with AVX-512's
    instructions for bfloat16 (AMD from Zen 4 on, Intel's Xeons from Cooper Lake on) train under autocast, too. Others train in float32
    unless told otherwise, as do GPUs before Ampere (such as T4 and V100), for which cuDNN has no convolutions in bfloat16.

    Args:
        dtype: 'bfloat16', or None for float32. Defaults to 'bfloat16'.
        on_cpu: Whether machines without a GPU autocast. Defaults to None: those for which :func:`cpu_has_bfloat16` says so. On
            others it is slower than float32.
        **kwargs: As for ``OptimWrapper``: optimizer, clip_grad, accumulative_counts.

    Raises:
        InputError: for another dtype.
    """

    def __init__(self, dtype: str | None = 'bfloat16', on_cpu: bool | None = None, **kwargs):
        if dtype not in ('bfloat16', None):
            raise InputError(
                f"optim_wrapper.dtype is {dtype!r}; give 'bfloat16' or None, or for float16 the type AmpOptimWrapper."
            )
        super().__init__(**kwargs)
        self.dtype = dtype
        self.on_cpu = on_cpu

    @contextmanager
    def optim_context(self, model: torch.nn.Module):
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        enabled = self.dtype is not None and (
            self.gpu_has_bfloat16 if device == 'cuda' else self.cpu_autocasts
        )
        with super().optim_context(model), torch.autocast(device, torch.bfloat16, enabled=enabled):
            yield

    def load_state_dict(self, state_dict: dict) -> None:
        # whether the optimiser is fused is this machine's and this torch's affair, not that of those which wrote the checkpoint
        saved = state_dict['param_groups']
        if len(saved) == len(self.param_groups):  # or else torch says it
            groups = [
                {**group, 'fused': own['fused']} if 'fused' in own else group
                for group, own in zip(saved, self.param_groups)
            ]
            state_dict = {**state_dict, 'param_groups': groups}
        super().load_state_dict(state_dict)

    @cached_property
    def cpu_autocasts(self) -> bool:
        if self.on_cpu is not None:
            return self.on_cpu
        if cpu_has_bfloat16():
            print_log(
                'Training in bfloat16, for which this CPU has instructions; optim_wrapper.on_cpu=False makes it float32.',
                'current',
            )
            return True
        return False

    @cached_property
    def gpu_has_bfloat16(self) -> bool:
        # torch.cuda.is_bf16_supported() counts GPUs that merely emulate it
        if torch.version.hip or torch.cuda.get_device_capability() >= (8, 0):
            return True
        print_log(
            f'{torch.cuda.get_device_name()} does not compute in bfloat16: training goes on in float32. For float16, set '
            "optim_wrapper = dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic').",
            'current',
            logging.WARNING,
        )
        return False
