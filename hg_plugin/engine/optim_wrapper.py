"""Mixed precision in training, and steps that are skipped where a gradient is not finite."""

import logging
from collections import deque
from contextlib import contextmanager
from functools import cached_property

import torch
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS

from hg_plugin.utils.errors import InputError

from .bfloat16_weights import Bfloat16Weights


def cpu_has_bfloat16() -> bool:
    """Whether the CPU has instructions for bfloat16; False where torch is too old to tell."""
    capabilities = getattr(torch.cpu, 'get_capabilities', dict)()
    return bool(capabilities.get('avx512_bf16'))


def not_finite(optimizer: torch.optim.Optimizer) -> torch.Tensor:
    """A scalar on the device: 1 if a gradient is NaN or infinite, or the squares overflow, else 0."""
    gradients = [p.grad for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
    norms = torch.stack(torch._foreach_norm(gradients)) if gradients else torch.zeros(1)
    return (~norms.square().sum().isfinite()).float()


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """MMEngine's ``OptimWrapper`` with forward passes under autocast to bfloat16, on hardware that has it.

    A step is skipped if the loss or a gradient is NaN or infinite, or the squares of the gradients overflow:
    weights and the optimizer's state stay as they are. All processes decide alike, because their gradients
    are averages. With a fused optimizer, the decision stays on the GPU, which the host does not wait for.
    :class:`DivergenceHook` counts skipped steps.

    bfloat16 has the range of float32, so losses are not scaled. MMEngine's ``AmpOptimWrapper`` always scales
    them, which makes the host wait for the GPU in every step, and does not run without a GPU.

    Autocast is on for models on GPUs from Ampere on and on CPUs with AVX-512 instructions for bfloat16 (AMD
    from Zen 4, Intel Xeon from Cooper Lake). Models elsewhere train in float32: cuDNN has no bfloat16
    convolutions for older GPUs (such as T4 and V100), and other CPUs are faster in float32.

    Args:
        dtype: 'bfloat16', or None for float32. Defaults to 'bfloat16'.
        on_cpu: Whether to autocast on CPUs. Defaults to None: on those of :func:`cpu_has_bfloat16`.
        **kwargs: Arguments of ``OptimWrapper``: optimizer, clip_grad, accumulative_counts.

    Attributes:
        skipped (deque): For each of the latest steps, a scalar on the device: 1 if it was skipped, else 0.

    Raises:
        InputError: For another dtype.
    """

    def __init__(self, dtype: str | None = 'bfloat16', on_cpu: bool | None = None, **kwargs):
        if dtype not in ('bfloat16', None):
            raise InputError(
                f"optim_wrapper.dtype is {dtype!r}; give 'bfloat16' or None, or for float16 the type "
                'AmpOptimWrapper.'
            )
        super().__init__(**kwargs)
        self.dtype = dtype
        self.on_cpu = on_cpu
        self.skipped: deque[torch.Tensor] = deque(maxlen=1000)
        self.weights: Bfloat16Weights | None = None

    # compiled, it would be split at every call of autograd and of the optimizer, for no gain; this is
    # torch.compiler.disable without its import of torch._dynamo, which takes seconds
    @torch._disable_dynamo
    def update_params(self, *args, **kwargs) -> None:
        super().update_params(*args, **kwargs)

    def backward(self, loss: torch.Tensor, **kwargs) -> None:
        # 1, or NaN for a loss that is not finite: then all gradients are, and in all processes
        super().backward(loss, gradient=loss.detach() * 0 + 1, **kwargs)

    def step(self, **kwargs) -> None:
        """Update the parameters, unless a gradient is not finite."""
        skip = not_finite(self.optimizer)
        self.skipped.append(skip)
        if getattr(self.optimizer, '_step_supports_amp_scaling', False):
            self.optimizer.found_inf = skip  # fused optimizers skip on the device, as for torch's GradScaler
            try:
                super().step(**kwargs)
            finally:
                del self.optimizer.found_inf
        elif not skip.item():
            super().step(**kwargs)

    @contextmanager
    def optim_context(self, model: torch.nn.Module):
        device = 'cuda' if next(model.parameters()).is_cuda else 'cpu'
        enabled = self.dtype is not None and (
            self.gpu_has_bfloat16 if device == 'cuda' else self.cpu_autocasts
        )
        with super().optim_context(model), torch.autocast(device, torch.bfloat16, enabled=enabled):
            if not enabled:
                yield
                return
            if self.weights is None or self.weights.model is not model:
                self.weights = Bfloat16Weights(model)
            with self.weights.stand_in():
                yield

    @cached_property
    def cpu_autocasts(self) -> bool:
        if self.on_cpu is None and cpu_has_bfloat16():
            print_log(
                'Training in bfloat16, for which this CPU has instructions; '
                'optim_wrapper.on_cpu=False makes it float32.',
                'current',
            )
            return True
        return bool(self.on_cpu)

    @cached_property
    def gpu_has_bfloat16(self) -> bool:
        # torch.cuda.is_bf16_supported() includes GPUs that only emulate it
        if torch.version.hip or torch.cuda.get_device_capability() >= (8, 0):
            return True
        print_log(
            f'{torch.cuda.get_device_name()} does not compute in bfloat16; training in float32. For float16, '
            "set optim_wrapper = dict(type='AmpOptimWrapper', dtype='float16', loss_scale='dynamic').",
            'current',
            logging.WARNING,
        )
        return False
