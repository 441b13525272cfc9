"""Newell, Yang, Deng, "Stacked Hourglass Networks for Human Pose Estimation", ECCV 2016."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hg_plugin.compat.torch import is_compiling
from hg_plugin.utils.errors import InputError

from .checkpointing import checkpoint_modules


def norm_layer(norm_cfg: dict, channels: int) -> nn.Module:
    return build_norm_layer(norm_cfg, channels)[1]


@contextmanager
def counted_together(norms: Sequence[nn.BatchNorm2d]) -> Iterator[None]:
    """Add 1 to ``num_batches_tracked`` of norms that run once each, in one operation instead of their own."""
    buffers = [norm._buffers for norm in norms if norm.training and norm.momentum is not None]
    counts = [each['num_batches_tracked'] for each in buffers]
    for each in buffers:
        each['num_batches_tracked'] = None
    try:
        yield
    finally:
        for each, count in zip(buffers, counts):
            each['num_batches_tracked'] = count
    if counts:
        torch._foreach_add_(counts, 1)


class PreActResidual(nn.Module):
    """BN-ReLU-conv three times (1x1, 3x3, 1x1) beside a skip: Figure 4 of the paper, from version 2 on.

    (N, in_channels, H, W) to (N, out_channels, H, W), with ``out_channels // 2`` channels inside. The skip
    has a 1x1 convolution only where the number of channels changes.
    """

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict):
        super().__init__()
        mid_channels = out_channels // 2
        self.norm1 = norm_layer(norm_cfg, in_channels)
        self.conv1 = nn.Conv2d(in_channels, mid_channels, 1)
        self.norm2 = norm_layer(norm_cfg, mid_channels)
        self.conv2 = nn.Conv2d(mid_channels, mid_channels, 3, padding=1)
        self.norm3 = norm_layer(norm_cfg, mid_channels)
        self.conv3 = nn.Conv2d(mid_channels, out_channels, 1)
        self.skip = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.norm1(x), inplace=True))
        out = self.conv2(F.relu(self.norm2(out), inplace=True))
        out = self.conv3(F.relu(self.norm3(out), inplace=True))
        return out.add_(self.skip(x))


class PostActResidual(nn.Module):
    """conv-BN-ReLU (1x1, 3x3, 1x1), the last ReLU after the addition: version 1 of the paper.

    (N, in_channels, H, W) to (N, out_channels, H, W), with ``out_channels // 2`` channels inside. The skip
    has a 1x1 convolution with BN only where the number of channels changes.
    """

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict):
        super().__init__()
        mid_channels = out_channels // 2
        self.conv1 = nn.Conv2d(in_channels, mid_channels, 1)
        self.norm1 = norm_layer(norm_cfg, mid_channels)
        self.conv2 = nn.Conv2d(mid_channels, mid_channels, 3, padding=1)
        self.norm2 = norm_layer(norm_cfg, mid_channels)
        self.conv3 = nn.Conv2d(mid_channels, out_channels, 1)
        self.norm3 = norm_layer(norm_cfg, out_channels)
        self.skip = nn.Identity()
        if in_channels != out_channels:
            conv = nn.Conv2d(in_channels, out_channels, 1)
            self.skip = nn.Sequential(conv, norm_layer(norm_cfg, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        out = F.relu(self.norm2(self.conv2(out)), inplace=True)
        out = self.norm3(self.conv3(out))
        return F.relu(out.add_(self.skip(x)), inplace=True)


RESIDUALS = dict(preact=PreActResidual, postact=PostActResidual)


class Linear(nn.Sequential):
    """1x1 convolution, BN, ReLU: (N, in_channels, H, W) to (N, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict):
        conv = nn.Conv2d(in_channels, out_channels, 1)
        super().__init__(conv, norm_layer(norm_cfg, out_channels), nn.ReLU(inplace=True))


class Hourglass(nn.Module):
    """An hourglass of order ``depth`` (Figure 3 of the paper), built recursively from the outside in.

    (N, in_channels, H, W) to (N, out_channels, H, W); H and W must be divisible by ``2**depth``.
    """

    def __init__(
        self,
        depth: int,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        num_blocks: tuple[int, int],
        residuals,
    ):
        super().__init__()
        before, after = num_blocks
        self.skip = residuals(in_channels, *[mid_channels] * (before - 1), out_channels)
        self.down = residuals(in_channels, *[mid_channels] * before)
        if depth > 1:
            self.inner = Hourglass(depth - 1, mid_channels, mid_channels, out_channels, num_blocks, residuals)
        else:
            self.inner = residuals(mid_channels, *[out_channels] * after)
        self.up = residuals(out_channels, *[out_channels] * after)

    def forward(self, x: Tensor) -> Tensor:
        low = self.down(F.max_pool2d(x, 2))
        low = self.up(self.inner(low))
        with torch.autocast('cuda', enabled=False):  # it would return float32, and so would the addition
            high = F.interpolate(low, scale_factor=2, mode='nearest')
        return high.add_(self.skip(x))


class AddJoin(nn.Module):
    """Input of the next hourglass by addition: x + conv(features) + conv(heatmaps). All are (N, C, H, W)."""

    def __init__(self, channels: int, num_keypoints: int):
        super().__init__()
        self.from_features = nn.Conv2d(channels, channels, 1)
        self.from_heatmaps = nn.Conv2d(num_keypoints, channels, 1)

    def forward(self, x: Tensor, feats: Tensor, heatmaps: Tensor, previous: Tensor) -> Tensor:
        x = x + self.from_features(feats)  # of which reparameterize() makes from_heatmaps a part
        return x if self.from_heatmaps is None else x + self.from_heatmaps(heatmaps)


class ConcatJoin(nn.Module):
    """Input of the next hourglass by concatenation: conv(concat(features, previous)) + conv(heatmaps).

    ``previous`` are the features of the stack before or, for the first stack, the pooled stem.
    """

    def __init__(self, channels: int, previous_channels: int, num_keypoints: int):
        super().__init__()
        out_channels = channels + previous_channels
        self.from_features = nn.Conv2d(out_channels, out_channels, 1)
        self.from_heatmaps = nn.Conv2d(num_keypoints, out_channels, 1)

    def forward(self, x: Tensor, feats: Tensor, heatmaps: Tensor, previous: Tensor) -> Tensor:
        x = self.from_features(torch.cat([feats, previous], dim=1))
        return x if self.from_heatmaps is None else x + self.from_heatmaps(heatmaps)


@MODELS.register_module()
class StackedHourglass(BaseModule):
    """Stacked hourglass network that returns the heatmaps of every stack.

    Arguments of the three published networks:

    ========  =========================================================================================
    paper v2  the defaults (Newell's training code and Princeton's PyTorch port)
    bearpaw   ``stem_channels=(64, 128, 256, 256)`` (pytorch-pose and its forks)
    paper v1  ``num_blocks=(3, 1), stem_channels=(64, 128, 128, 128, 256), out_channels=512,
              residual='postact', join='concat'``
    ========  =========================================================================================

    Args:
        num_stacks: Number of hourglasses in a row. Defaults to 2.
        num_keypoints: Heatmaps of a stack, K. Defaults to 16, as in MPII.
        depth: Order of the hourglass: how often it halves its input. Defaults to 4.
        channels: Channels inside an hourglass. Defaults to 256.
        num_blocks: Residuals on each branch, or a pair: on the skip and on the way down, and on the way up.
            Defaults to 1.
        stem_channels: Channels after the 7x7 convolution, after the residual before pooling, and after each
            residual behind it; the last must be ``channels``. Defaults to ``channels`` times 1/4, 1/2, 1/2
            and 1: (64, 128, 128, 256).
        out_channels: Channels that leave an hourglass. Defaults to ``channels``; only ``join='concat'`` takes
            others.
        residual: 'preact' (BN-ReLU-conv) or 'postact' (conv-BN-ReLU). Defaults to 'preact'.
        join: How a stack feeds the next: 'add' (:class:`AddJoin`) or 'concat' (:class:`ConcatJoin`). Defaults
            to 'add'.
        norm_cfg: Norm layer, such as ``dict(type='SyncBN')``. Defaults to ``dict(type='BN')``.
        with_cp: Keep only the input of each hourglass for the backward pass and compute its activations
            again: slower, with far less memory, and the same gradients. Defaults to False.
        channels_last: Keep weights and activations in torch's channels_last memory format, in which
            convolutions are faster on CPUs, and on GPUs in half precision. Defaults to False.
        in_channels: Channels of the images, such as 1 for X-rays. Defaults to 3.
        frozen_stages: Stacks whose parameters and statistics stay as they are, from the first: 0 freezes the
            layers before the first hourglass, 1 the first stack, too. Defaults to -1, none.
        norm_eval: Keep the running statistics of all batch norms, and normalize by them. Defaults to False.
        init_cfg: MMEngine's initialization config. Defaults to None: torch's own, as in the published code.

    Raises:
        InputError: For arguments that build no network, and in forward for a wrong input size.
    """

    def __init__(
        self,
        num_stacks: int = 2,
        num_keypoints: int = 16,
        depth: int = 4,
        channels: int = 256,
        num_blocks: int | tuple[int, int] = 1,
        stem_channels: Sequence[int] | None = None,
        out_channels: int | None = None,
        residual: str = 'preact',
        join: str = 'add',
        norm_cfg: dict = dict(type='BN'),
        with_cp: bool = False,
        channels_last: bool = False,
        in_channels: int = 3,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        num_blocks = (num_blocks, num_blocks) if isinstance(num_blocks, int) else tuple(num_blocks)
        stem_channels = stem_channels or (channels // 4, channels // 2, channels // 2, channels)
        out_channels = out_channels or channels
        demands = {
            f'num_stacks is {num_stacks}, num_keypoints is {num_keypoints}, depth is {depth}, num_blocks is '
            f'{num_blocks}; all must be positive': min(num_stacks, num_keypoints, depth, *num_blocks) > 0,
            f'stem_channels is {tuple(stem_channels)}; give at least three, and the last equal to channels '
            f'({channels})': len(stem_channels) > 2 and stem_channels[-1] == channels,
            f'frozen_stages is {frozen_stages}; give -1 to num_stacks ({num_stacks})': (
                -1 <= frozen_stages <= num_stacks
            ),
            f"residual is '{residual}'; choose one of {', '.join(RESIDUALS)}": residual in RESIDUALS,
            f"join is '{join}'; choose 'add' or 'concat'": join in ('add', 'concat'),
            f"join='add' needs out_channels ({out_channels}) equal to channels ({channels})": (
                join == 'concat' or out_channels == channels
            ),
        }
        for demand, met in demands.items():
            if not met:
                raise InputError(f'StackedHourglass: {demand}.')
        self.num_stacks = num_stacks
        self.num_keypoints = num_keypoints
        self.size_divisor = 4 * 2**depth
        self.with_cp = with_cp
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

        def residuals(*widths: int) -> nn.Sequential:
            return nn.Sequential(*(RESIDUALS[residual](a, b, norm_cfg) for a, b in zip(widths, widths[1:])))

        self.stem_conv = nn.Sequential(
            nn.Conv2d(in_channels, stem_channels[0], 7, stride=2, padding=3),
            norm_layer(norm_cfg, stem_channels[0]),
            nn.ReLU(inplace=True),
            residuals(*stem_channels[:2]),
        )
        self.stem_residuals = residuals(*stem_channels[1:])
        self.hourglasses = nn.ModuleList()
        self.features = nn.ModuleList()
        self.scores = nn.ModuleList()
        self.joins = nn.ModuleList()
        width, previous_channels = channels, stem_channels[1]
        for stack in range(num_stacks):
            last = stack == num_stacks - 1
            feat_channels = out_channels if last else channels
            self.hourglasses.append(Hourglass(depth, width, channels, out_channels, num_blocks, residuals))
            if join == 'add':
                before_linear = residuals(*[channels] * (num_blocks[1] + 1))
            else:
                before_linear = Linear(out_channels, out_channels, norm_cfg)
            self.features.append(nn.Sequential(before_linear, Linear(out_channels, feat_channels, norm_cfg)))
            self.scores.append(nn.Conv2d(feat_channels, num_keypoints, 1))
            if last:
                break
            if join == 'add':
                self.joins.append(AddJoin(channels, num_keypoints))
            else:
                self.joins.append(ConcatJoin(channels, previous_channels, num_keypoints))
                width, previous_channels = channels + previous_channels, channels
        if channels_last:  # convolutions return the memory format of their weights
            self.to(memory_format=torch.channels_last)
        self.train()

    def train(self, mode: bool = True) -> 'StackedHourglass':
        super().train(mode)
        if self.frozen_stages >= 0:
            stacks = (self.hourglasses, self.features, self.scores, self.joins)
            frozen = [module for modules in stacks for module in modules[: self.frozen_stages]]
            for module in (self.stem_conv, self.stem_residuals, *frozen):
                module.requires_grad_(False).eval()
        for norm in self.modules() if self.norm_eval else ():
            if isinstance(norm, _BatchNorm):  # SyncBN, too
                norm.eval()
        self.norms = [
            norm
            for norm in self.modules()
            if isinstance(norm, nn.BatchNorm2d) and norm.num_batches_tracked is not None
        ]
        return self

    def check_input_size(self, height: int, width: int) -> None:
        """Raise an :class:`InputError` that names sizes which would work where (height, width) does not."""
        step = self.size_divisor
        if height % step or width % step or not height or not width:
            sizes = [
                sorted({max(side // step, 1) * step, -(-side // step) * step}) for side in (width, height)
            ]
            widths, heights = (' or '.join(map(str, size)) for size in sizes)
            raise InputError(
                f'StackedHourglass: an input of {width}x{height} pixels cannot be halved often enough; make '
                f'input_size multiples of {step} (4 * 2**depth), such as width {widths} and height {heights}.'
            )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Predict heatmaps.

        Args:
            image: (N, in_channels, H, W) normalized images; H and W must be divisible by ``4 * 2**depth``.

        Returns:
            One (N, num_keypoints, H/4, W/4) tensor of heatmaps for each stack, first to last.
        """
        self.check_input_size(*image.shape[-2:])
        with nullcontext() if is_compiling() else counted_together(self.norms):
            return self._heatmaps(image)

    def _heatmaps(self, image: Tensor) -> tuple[Tensor, ...]:
        pooled = F.max_pool2d(self.stem_conv(image), 2)
        x, previous = self.stem_residuals(pooled), pooled
        all_heatmaps = []
        for stack in range(self.num_stacks):
            hourglass, features = self.hourglasses[stack], self.features[stack]
            if self.with_cp and self.training and torch.is_grad_enabled():
                feats = checkpoint_modules(x, hourglass, features)
            else:
                feats = features(hourglass(x))
            heatmaps = self.scores[stack](feats)
            all_heatmaps.append(heatmaps)
            if stack < self.num_stacks - 1:
                x, previous = self.joins[stack](x, feats, heatmaps, previous), feats
        return tuple(all_heatmaps)
