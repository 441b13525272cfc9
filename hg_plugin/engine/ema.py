"""Exponential moving average of a model's weights, without waiting for the GPU."""

import math

import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS
from torch import nn


@MODELS.register_module()
class ForeachEMA(ExponentialMovingAverage):
    """Average all weights in one operation, as MMEngine's ``ExponentialMovingAverage`` does one by one.

    With ``gamma`` it is MMPose's ``ExpMomentumEMA``. Both read their step counter from the GPU in every
    iteration; here the host counts too. Averages are the same up to rounding, and checkpoints fit all three.
    In a config:
    ``custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', ema_type='ForeachEMA')]``.

    Args:
        model: The model to average.
        momentum: average = (1 - momentum) * average + momentum * weight. Defaults to 0.0002.
        gamma: As in ``ExpMomentumEMA``: momentum starts at 1 and decays with exp(-steps / gamma), so the
            average forgets the first, random weights. MMPose's default is 2000. Defaults to None: momentum is
            constant, as in ``ExponentialMovingAverage``.
        **kwargs: ``interval``, ``device`` and ``update_buffers`` of ``ExponentialMovingAverage``. Without
            ``update_buffers``, running statistics on the model's device are the model's own tensors.
    """

    def __init__(self, model: nn.Module, momentum: float = 0.0002, gamma: float | None = None, **kwargs):
        super().__init__(model, momentum, **kwargs)
        assert gamma is None or gamma > 0, f'gamma must be greater than 0, but got {gamma}'
        self.gamma = gamma
        self.steps_on_host = 0

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.steps_on_host = int(self.steps)

    def update_parameters(self, model: nn.Module) -> None:
        """Update the averages; the first call copies the weights of ``model``."""
        sources = model.state_dict() if self.update_buffers else dict(model.named_parameters())
        pairs = [
            (average.data, sources[name].data.to(average.device))
            for name, average in self.avg_parameters.items()
        ]
        if self.steps_on_host == 0:
            for average, weight in pairs:
                average.copy_(weight)
        elif self.steps_on_host % self.interval == 0:
            momentum = self.momentum
            if self.gamma is not None:
                momentum += (1 - momentum) * math.exp(-(1 + self.steps_on_host) / self.gamma)
            averages, weights = zip(*(pair for pair in pairs if pair[0].is_floating_point()))
            torch._foreach_lerp_(averages, weights, momentum)
        if not self.update_buffers:
            self._share_buffers(model)
        self.steps += 1
        self.steps_on_host += 1

    def _share_buffers(self, model: nn.Module) -> None:
        """Use the buffers of ``model``, so that they also change where SyncBuffersHook averages them."""
        for averaged, trained in zip(self.module.modules(), model.modules()):
            for name, buffer in trained._buffers.items():
                average = averaged._buffers[name]
                if average is not buffer and average.device == buffer.device:
                    averaged._buffers[name] = buffer
                elif average is not buffer:
                    average.copy_(buffer)
