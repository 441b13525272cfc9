"""TensorFloat-32 on NVIDIA GPUs from Ampere on."""

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class TF32Hook(Hook):
    """Set whether float32 convolutions and matrix products may round their inputs to TF32's 10-bit mantissa.

    That is several times faster. torch's default is on for convolutions and off for matrix products.

    Args:
        enable: Whether they may. Defaults to True.
    """

    def __init__(self, enable: bool = True):
        self.enable = enable

    def before_run(self, runner) -> None:
        torch.backends.cudnn.allow_tf32 = self.enable
        torch.backends.cuda.matmul.allow_tf32 = self.enable
