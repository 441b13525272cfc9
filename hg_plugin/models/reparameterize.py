"""The same network with fewer operations, for inference: folded batch norms, and one convolution between two stacks."""

import copy

import torch
from mmpose.models.pose_estimators.base import BasePoseEstimator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hg_plugin.utils.errors import InputError

from .multi_stage_heatmap_head import MultiStageHeatmapHead
from .stacked_hourglass import AddJoin, ConcatJoin, PostActResidual, PreActResidual, StackedHourglass

# Which norm alone reads which convolution. A pre-activation residual's first norm reads a sum, and stays.
NORM_AFTER = {
    PreActResidual: dict(conv1='norm2', conv2='norm3'),
    PostActResidual: dict(conv1='norm1', conv2='norm2', conv3='norm3'),
}


class MergedAddJoin(nn.Module):
    """:class:`AddJoin` where the prediction is a linear function of the features: x + conv(features)."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.from_features = conv

    def forward(self, x: Tensor, features: Tensor, heatmaps: Tensor, previous: Tensor) -> Tensor:
        return self.from_features(features).add_(x)


class MergedConcatJoin(MergedAddJoin):
    """The same for :class:`ConcatJoin`: conv(concat(features, previous features))."""

    def forward(self, x: Tensor, features: Tensor, heatmaps: Tensor, previous: Tensor) -> Tensor:
        return self.from_features(torch.cat([features, previous], dim=1))


MERGED = {AddJoin: MergedAddJoin, ConcatJoin: MergedConcatJoin}


class LastStack(nn.Module):
    """A :class:`StackedHourglass` that returns the last stack's heatmaps alone, in a tuple of one."""

    def __init__(self, network: StackedHourglass):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple:
        return self.network(image)[-1:]


def fold_batch_norms(network: nn.Module) -> None:
    """Folds every batch norm that follows a convolution into it, in place."""
    for module in network.modules():
        names = list(module._modules)
        pairs = (
            dict(zip(names, names[1:]))
            if isinstance(module, nn.Sequential)
            else NORM_AFTER.get(type(module), {})
        )
        for conv_name, norm_name in pairs.items():
            conv, norm = getattr(module, conv_name), getattr(module, norm_name)
            if isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm) and norm.running_var is not None:
                setattr(module, conv_name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())


def merge_joins(network: StackedHourglass) -> None:
    """Makes one convolution of what lies between two stacks, in place; all stacks but the last then return features.

    A prediction is ``Wo f + bo`` of the features f, so that ``Wf f + Wp (Wo f + bo)`` is ``(Wf + Wp Wo) f + Wp bo``.
    """
    for stack, join in enumerate(network.joins):
        score, predicted, merged = network.scores[stack], join.from_heatmaps, join.from_features
        from_prediction = predicted.weight.double().flatten(1)
        # behind a concatenation, the features come first
        merged.weight[:, : score.in_channels, 0, 0] += from_prediction @ score.weight.double().flatten(1)
        merged.bias += predicted.bias + from_prediction @ score.bias.double()
        network.joins[stack] = MERGED[type(join)](merged)
        network.scores[stack] = nn.Identity()


@torch.no_grad()
def reparameterize(model: nn.Module, all_stacks: bool = False) -> nn.Module:
    """A copy of a trained network that computes the same heatmaps with fewer operations.

    Batch norms that follow a convolution become part of it. Between two stacks, the score convolution, the convolution
    that feeds the prediction back and the one that feeds the features back become one, so that the heatmaps of all
    stacks but the last are never computed. Both are exact but for rounding. In a pre-activation residual the first
    batch norm follows an addition, and stays. On a CPU the copy is in torch's channels_last memory format, which is the
    larger part of what it gains there.

    Args:
        model: A :class:`StackedHourglass`, or a pose estimator with one as its backbone, in evaluation mode. It stays
            as it is.
        all_stacks: Keep the heatmaps of every stack, and fold batch norms only. Defaults to False.

    Returns:
        The copy, for inference only. As the original's, its backbone returns a tuple of (N, K, H/4, W/4) heatmaps, but
        of the last stack alone unless ``all_stacks``; an estimator's :class:`MultiStageHeatmapHead` expects that one.

    Raises:
        InputError: for a model in training mode, or without a :class:`StackedHourglass`.
    """
    backbone = model.backbone if isinstance(model, BasePoseEstimator) else model
    if not isinstance(backbone, StackedHourglass):
        raise InputError(
            f'reparameterize: the network is a {type(backbone).__name__}; give a StackedHourglass, or a '
            'pose estimator with one as its backbone.'
        )
    if any(module.training for module in model.modules()):
        raise InputError(
            'reparameterize: the model is in training mode, where batch norms depend on the batch; '
            'call its eval() first.'
        )
    model = copy.deepcopy(model)
    backbone = model.backbone if isinstance(model, BasePoseEstimator) else model
    fold_batch_norms(backbone)
    if next(backbone.parameters()).device.type == 'cpu':
        backbone.to(memory_format=torch.channels_last)
    if all_stacks:
        return model.eval()
    merge_joins(backbone)
    if backbone is model:
        return LastStack(model).eval()
    model.backbone = LastStack(backbone)
    if isinstance(model.head, MultiStageHeatmapHead):
        model.head.num_stages = 1
        for name in ('multi_final_layers', 'loss_modules', 'stage_weights'):
            setattr(model.head, name, getattr(model.head, name)[-1:])
    return model.eval()
