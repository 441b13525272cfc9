"""Running statistics of batch norms, which one batch that is not finite would spoil for good."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class RunningStatistics:
    """Puts back the running means and variances of a model after a batch that is not finite.

    A forward pass updates them before anything is known of the batch, and a NaN stays in a moving average.
    All is done on the device.
    """

    def __init__(self, model: nn.Module):
        self.buffers = [
            buffer
            for module in model.modules()
            if isinstance(module, _BatchNorm)
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]

    def _values(self) -> Tensor:
        return torch.cat([buffer.flatten() for buffer in self.buffers])

    def remember(self) -> None:
        """Keep a copy of the present values; call it before a forward pass."""
        if self.buffers:
            self.saved = self._values()

    def restore(self, skipped: Tensor | None = None) -> None:
        """Put back values that are not finite, or all where the scalar ``skipped`` is 1."""
        if not self.buffers:
            return
        values = self._values()
        keep = values.isfinite()
        if skipped is not None:
            keep &= skipped == 0
        values = torch.where(keep, values, self.saved)
        parts = values.split([buffer.numel() for buffer in self.buffers])
        torch._foreach_copy_(self.buffers, list(parts))
