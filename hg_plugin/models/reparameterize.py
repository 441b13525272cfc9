"""Fewer operations for inference: folded batch norms, and one convolution between two stacks."""

import copy

import torch
from mmpose.models.pose_estimators.base import BasePoseEstimator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hg_plugin.utils.errors import InputError

from .multi_stage_heatmap_head import MultiStageHeatmapHead
from .stacked_hourglass import PostActResidual, PreActResidual, StackedHourglass

# The norms that read only a convolution. The first norm of a PreActResidual reads a sum, and stays.
NORM_AFTER = {
    PreActResidual: dict(conv1='norm2', conv2='norm3'),
    PostActResidual: dict(conv1='norm1', conv2='norm2', conv3='norm3'),
}


class LastStack(nn.Module):
    """A :class:`StackedHourglass` that returns only the last stack's heatmaps, in a tuple of one."""

    def __init__(self, network: StackedHourglass):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return self.network(image)[-1:]


def fold_batch_norms(network: nn.Module) -> None:
    """Fold every batch norm that follows a convolution into it, in place."""
    for module in network.modules():
        pairs = NORM_AFTER.get(type(module), {})
        if isinstance(module, nn.Sequential):
            names = list(module._modules)
            pairs = dict(zip(names, names[1:]))
        for conv_name, norm_name in pairs.items():
            conv, norm = getattr(module, conv_name), getattr(module, norm_name)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm) and norm.running_var is not None:
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())


def merge_joins(network: StackedHourglass) -> None:
    """Merge the convolutions between two stacks into one, in place; then only the last stack has heatmaps.

    Heatmaps are ``Wo f + bo`` of the features f, so ``Wf f + Wp (Wo f + bo)`` is ``(Wf + Wp Wo) f + Wp bo``.
    """
    for stack, join in enumerate(network.joins):
        score, merged = network.scores[stack], join.from_features
        from_heatmaps = join.from_heatmaps.weight.double().flatten(1)
        # the features come first in a concatenation
        merged.weight[:, : score.in_channels, 0, 0] += from_heatmaps @ score.weight.double().flatten(1)
        merged.bias += join.from_heatmaps.bias + from_heatmaps @ score.bias.double()
        join.from_heatmaps = None
        network.scores[stack] = nn.Identity()


@torch.no_grad()
def reparameterize(model: nn.Module, all_stacks: bool = False) -> nn.Module:
    """Copy a trained network into one that computes the same heatmaps with fewer operations.

    Batch norms are folded into the convolution before them; the first norm of a pre-activation residual
    follows an addition and stays. Between two stacks, the convolutions to heatmaps, from heatmaps and from
    features become one, so only the last stack computes heatmaps. Both are exact up to rounding. On a CPU the
    copy is in the channels_last memory format, which gains the most there.

    Args:
        model: A :class:`StackedHourglass`, or a pose estimator with one as its backbone. It is not changed.
        all_stacks: Keep the heatmaps of every stack, and only fold batch norms. Defaults to False.

    Returns:
        The copy in evaluation mode, for inference only. Its backbone returns a tuple of heatmaps
        (N, K, H/4, W/4): of every stack with ``all_stacks``, or else of the last stack, and the
        :class:`MultiStageHeatmapHead` of an estimator expects the same.

    Raises:
        InputError: If the network is no :class:`StackedHourglass`.
    """
    model = copy.deepcopy(model).eval()
    backbone = model.backbone if isinstance(model, BasePoseEstimator) else model
    if not isinstance(backbone, StackedHourglass):
        raise InputError(
            f'reparameterize: the network is a {type(backbone).__name__}; give a StackedHourglass, or a pose '
            'estimator with one as its backbone.'
        )
    fold_batch_norms(backbone)
    if next(backbone.parameters()).device.type == 'cpu':
        backbone.to(memory_format=torch.channels_last)
    if all_stacks:
        return model
    merge_joins(backbone)
    if backbone is model:
        return LastStack(model).eval()
    model.backbone = LastStack(backbone)
    if isinstance(model.head, MultiStageHeatmapHead):
        model.head.num_stages = 1
        for name in ('multi_deconv_layers', 'multi_final_layers', 'loss_module', 'stage_weights'):
            setattr(model.head, name, getattr(model.head, name)[-1:])
    return model.eval()
