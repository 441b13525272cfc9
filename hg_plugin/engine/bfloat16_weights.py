"""All weights of a model in bfloat16 during a forward pass, cast in one operation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LAYERS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


class Bfloat16Weights:
    """Copies in bfloat16 of a model's float32 weights, which stand in for them in a forward pass.

    Autocast casts every weight and every gradient on its own: 411 of 1,360 operations in a training step of
    two stacks, see docs/benchmarks.md. Here they are two operations. Losses and gradients are the same bit by
    bit.

    Args:
        model: Its convolutions and linear layers get copies. Autocast casts what other layers need.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.layers = [layer._parameters for layer in model.modules() if type(layer) in LAYERS]

    @contextmanager
    def stand_in(self) -> Iterator[None]:
        """Replace the weights that are trained until the context ends."""
        weights = [
            (layer, name, weight)
            for layer in self.layers
            for name, weight in layer.items()
            if weight is not None and weight.requires_grad and weight.dtype == torch.float32
        ]
        for (layer, name, _), copy in zip(weights, _Cast.apply(*(weight for *_, weight in weights))):
            layer[name] = copy
        try:
            yield
        finally:
            for layer, name, weight in weights:
                layer[name] = weight


class _Cast(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(_cast(weights, torch.bfloat16))

    @staticmethod
    def backward(ctx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        found = iter(_cast([each for each in gradients if each is not None], torch.float32))
        return tuple(None if each is None else next(found) for each in gradients)


@torch._disable_dynamo  # it would be a graph of its own
def _cast(tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    copies = [torch.empty_like(tensor, dtype=dtype) for tensor in tensors]
    if copies:
        torch._foreach_copy_(copies, tensors)
    return copies
