"""Averaged weights, without waiting for the GPU."""

import math

import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from torch import Tensor, nn

from hg_plugin.utils.errors import InputError


@MODELS.register_module()
class ForeachEMA(ExponentialMovingAverage):
    """MMEngine's ``ExponentialMovingAverage`` or MMPose's ``ExpMomentumEMA``, the same but for rounding, with all weights in one go.

    Those two compute a weight at a time and ask the GPU for their step counter, in every iteration or, MMPose's, once for every
    weight in every iteration. Here it is counted on the host too. Without ``update_buffers``, running statistics are the model's own
    tensors, where both are on one device. Checkpoints are theirs and fit all three. In a config:
    ``custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', ema_type='ForeachEMA')]``.

    Args:
        model: Whose weights are averaged.
        momentum: average = (1 - momentum) * average + momentum * weight. Defaults to 0.0002.
        gamma: As of ``ExpMomentumEMA``: momentum falls from 1 with exp(-steps / gamma), so that the average forgets the random weights of
            the start; MMPose's default is 2000. Defaults to None: as of ``ExponentialMovingAverage``, momentum is constant.
        interval: Iterations from one average to the next. Defaults to 1.
        **kwargs: device and update_buffers, as for ``ExponentialMovingAverage``.

    Raises:
        InputError: for a ``momentum``, ``gamma`` or ``interval`` out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        momentum: float = 0.0002,
        gamma: float | None = None,
        interval: int = 1,
        **kwargs,
    ):
        if not (isinstance(momentum, float) and 0 < momentum < 1):
            raise InputError(
                f'ForeachEMA: momentum is {momentum!r}; give the share of the new weights, such as 0.0002.'
            )
        if gamma is not None and not (isinstance(gamma, (int, float)) and gamma > 0):
            raise InputError(
                f'ForeachEMA: gamma is {gamma!r}; give a number of iterations, or None for a constant momentum.'
            )
        if not (isinstance(interval, int) and interval > 0):
            raise InputError(f'ForeachEMA: interval is {interval!r}; give a number of iterations.')
        super().__init__(model, momentum, interval, **kwargs)
        self.gamma = gamma
        self.steps_on_host = 0

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.steps_on_host = int(self.steps)

    def update_parameters(self, model: nn.Module) -> None:
        """Takes the weights of ``model`` into the average. The first time they are the average."""
        tensors = model.state_dict() if self.update_buffers else dict(model.named_parameters())
        averages = [average.data for average in self.avg_parameters.values()]
        weights = [tensors[name].data.to(average.device) for name, average in self.avg_parameters.items()]
        if self.steps_on_host == 0:
            copy(averages, weights)
        elif self.steps_on_host % self.interval == 0:
            floating = [average.is_floating_point() for average in averages]
            averages, weights = (
                [tensor for tensor, chosen in zip(tensors, floating) if chosen]
                for tensors in (averages, weights)
            )
            torch._foreach_lerp_(averages, weights, self.momentum_now())
        if not self.update_buffers:
            share_buffers(self.module, model)
        self.steps += 1
        self.steps_on_host += 1

    def momentum_now(self) -> float:
        fallen = 0.0 if self.gamma is None else math.exp(-(1 + self.steps_on_host) / self.gamma)
        return self.momentum + (1 - self.momentum) * fallen


def share_buffers(target: nn.Module, source: nn.Module) -> None:
    """Makes the running statistics of ``source`` those of ``target``, and keeps them so when SyncBuffersHook averages them over processes."""
    for mine, theirs in zip(target.modules(), source.modules()):
        for name, buffer in theirs._buffers.items():
            average = mine._buffers[name]
            if average is buffer:
                continue
            if average.device == buffer.device:
                mine._buffers[name] = buffer
            else:
                average.copy_(buffer)


def copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    """Each source into its target, those of a type at a time, which torch copies as one."""
    for dtype in {target.dtype for target in targets}:
        pairs = [(target, source) for target, source in zip(targets, sources) if target.dtype == dtype]
        torch._foreach_copy_(*zip(*pairs))
