"""TensorFloat-32 on NVIDIA GPUs from Ampere on."""

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class TF32Hook(Hook):
    """Sets whether float32 convolutions and matrix products may round their factors to TF32's 10 bits, which is several times faster.

    torch's own default is yes for convolutions, no for matrix products.

    Args:
        enable: Defaults to True.
    """

    def __init__(self, enable: bool = True):
        self.enable = enable

    def before_run(self, runner) -> None:
        torch.backends.cudnn.allow_tf32 = self.enable
        torch.backends.cuda.matmul.allow_tf32 = self.enable
