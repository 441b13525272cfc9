"""Stacked hourglass networks: Newell, Yang, Deng, "Stacked Hourglass Networks for Human Pose Estimation", ECCV 2016."""

import contextlib
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from hg_plugin.compat.torch import is_compiling
from hg_plugin.utils.errors import InputError


def norm_layer(norm_cfg: dict, channels: int) -> nn.Module:
    return build_norm_layer(norm_cfg, channels)[1]


class PreActResidual(nn.Module):
    """BN-ReLU-conv three times (1x1, 3x3, 1x1) beside a skip; Figure 4 of the paper, as trained from its second version on.

    ``out_channels / 2`` channels run inside. The skip has a 1x1 convolution only where the number of channels changes.
    (N, in_channels, H, W) becomes (N, out_channels, H, W).
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
    """conv-BN-ReLU (1x1, 3x3, 1x1), the last ReLU after the addition; the paper's first version.

    ``out_channels / 2`` channels run inside. The skip has a 1x1 convolution with BN only where the number of channels changes.
    (N, in_channels, H, W) becomes (N, out_channels, H, W).
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
        self.skip = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), norm_layer(norm_cfg, out_channels))
        )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        out = F.relu(self.norm2(self.conv2(out)), inplace=True)
        out = self.norm3(self.conv3(out))
        return F.relu(out.add_(self.skip(x)), inplace=True)


RESIDUALS = dict(preact=PreActResidual, postact=PostActResidual)


class Linear(nn.Sequential):
    """1x1 convolution, BN, ReLU: the paper's 'linear module'. (N, in_channels, H, W) becomes (N, out_channels, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, norm_cfg: dict):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 1), norm_layer(norm_cfg, out_channels), nn.ReLU(inplace=True)
        )


def upsample(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N, C, 2H, 2W) by nearest neighbours, in the precision of ``x``.

    Autocast on GPUs would make float32 of it, and of everything that is added to it.
    """
    with torch.autocast('cuda', enabled=False):
        return F.interpolate(x, scale_factor=2, mode='nearest')


class Hourglass(nn.Module):
    """One hourglass of order ``depth`` (Figure 3 of the paper), built recursively from the outside in.

    (N, in_channels, H, W) becomes (N, out_channels, H, W); H and W divide by ``2**depth``.
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
        return upsample(low).add_(self.skip(x))


class AddJoin(nn.Module):
    """The next hourglass's input by addition: x + conv(features) + conv(prediction). All are (N, C, H, W)."""

    def __init__(self, in_channels: int, feature_channels: int, num_keypoints: int):
        super().__init__()
        self.from_features = nn.Conv2d(feature_channels, in_channels, 1)
        self.from_heatmaps = nn.Conv2d(num_keypoints, in_channels, 1)

    def forward(self, x: Tensor, features: Tensor, heatmaps: Tensor, previous: Tensor) -> Tensor:
        return x + self.from_features(features) + self.from_heatmaps(heatmaps)


class ConcatJoin(nn.Module):
    """The next hourglass's input by concatenation: conv(concat(features, previous features)) + conv(prediction).

    ``previous`` are the features of the stack before, and the pooled stem for the first; it widens the next input.
    """

    def __init__(self, feature_channels: int, previous_channels: int, num_keypoints: int):
        super().__init__()
        out_channels = feature_channels + previous_channels
        self.from_features = nn.Conv2d(out_channels, out_channels, 1)
        self.from_heatmaps = nn.Conv2d(num_keypoints, out_channels, 1)

    def forward(self, x: Tensor, features: Tensor, heatmaps: Tensor, previous: Tensor) -> Tensor:
        return self.from_features(torch.cat([features, previous], dim=1)) + self.from_heatmaps(heatmaps)


@contextlib.contextmanager
def frozen_running_stats(*modules: nn.Module):
    """Batch norms of ``modules`` normalise by the batch as in training, but leave their running statistics alone.

    They still compute them, with a momentum of 0: :func:`checkpoint` compares what both passes save.
    """
    norms = [
        (m, m.momentum, m.num_batches_tracked)
        for module in modules
        for m in module.modules()
        if isinstance(m, _BatchNorm) and m.track_running_stats
    ]
    for norm, _, count in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, count.clone()
    try:
        yield
    finally:
        for norm, momentum, count in norms:
            norm.momentum, norm.num_batches_tracked = momentum, count


@MODELS.register_module()
class StackedHourglass(BaseModule):
    """Stacked hourglass network that returns the heatmaps of every stack.

    Three published networks come out of the same code:

    ==============  ==================================================================================================
    paper v2        the defaults (Newell's training code and Princeton's PyTorch port)
    bearpaw         ``stem_channels=(64, 128, 256, 256)`` (pytorch-pose and its forks)
    paper v1        ``num_blocks=(3, 1), stem_channels=(64, 128, 128, 128, 256), out_channels=512, residual='postact',
                    join='concat'``
    ==============  ==================================================================================================

    Args:
        num_stacks: Hourglasses in a row. Defaults to 2.
        num_keypoints: Heatmaps of a stack, K. Defaults to 16, as MPII has.
        depth: Order of the hourglass: how often it halves its input. Defaults to 4.
        channels: Channels inside an hourglass. Defaults to 256.
        num_blocks: Residuals on each branch, or a pair: on the skip and on the way down, and on the way up. Defaults to 1.
        stem_channels: Channels after the 7x7 convolution, after the residual before the pooling, and after each residual behind it;
            the last are ``channels``. Defaults to ``channels`` times 1/4, 1/2, 1/2, 1: (64, 128, 128, 256).
        out_channels: Channels that leave an hourglass. Defaults to ``channels``; only ``join='concat'`` takes others.
        residual: 'preact' (BN-ReLU-conv) or 'postact' (conv-BN-ReLU). Defaults to 'preact'.
        join: How a stack feeds the next: 'add' (:class:`AddJoin`) or 'concat' (:class:`ConcatJoin`). Defaults to 'add'.
        norm_cfg: Norm layer, e.g. ``dict(type='SyncBN')``. Defaults to ``dict(type='BN')``.
        with_cp: Keep only each hourglass's input for the backward pass and compute its inside again: slower, and
            far less memory. Gradients and running statistics are the same. Defaults to False.
        channels_last: Keep weights and activations in torch's channels_last memory format: faster convolutions on CPUs, and on
            GPUs in half precision. Results are the same. Defaults to False.
        init_cfg: MMEngine's initialisation config. Defaults to None: torch's own, as the published training code has.

    Raises:
        InputError: for arguments that build no network, and at the first call for an input size that cannot be halved often enough.
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
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        num_blocks = (num_blocks, num_blocks) if isinstance(num_blocks, int) else tuple(num_blocks)
        if stem_channels is None:
            stem_channels = (channels // 4, channels // 2, channels // 2, channels)
        out_channels = out_channels or channels
        for name, value in dict(num_stacks=num_stacks, num_keypoints=num_keypoints, depth=depth).items():
            if value < 1:
                raise InputError(f'StackedHourglass: {name} is {value}; it must be at least 1.')
        if len(num_blocks) != 2 or min(num_blocks) < 1:
            raise InputError(
                f'StackedHourglass: num_blocks is {num_blocks}; give a positive number or a pair of them.'
            )
        if len(stem_channels) < 3 or stem_channels[-1] != channels:
            raise InputError(
                f'StackedHourglass: stem_channels is {tuple(stem_channels)}; give at least three, '
                f'of which the last equals channels ({channels}).'
            )
        if any(c < 4 or c % 2 for c in (channels, out_channels, *stem_channels[1:])):
            raise InputError(
                f'StackedHourglass: channels ({channels}), out_channels ({out_channels}) and stem_channels '
                f'{tuple(stem_channels)} must be even and at least 4, because a residual halves them.'
            )
        if residual not in RESIDUALS:
            raise InputError(
                f"StackedHourglass: residual is '{residual}'; choose one of {', '.join(RESIDUALS)}."
            )
        if join not in ('add', 'concat'):
            raise InputError(f"StackedHourglass: join is '{join}'; choose 'add' or 'concat'.")
        if join == 'add' and out_channels != channels:
            raise InputError(
                f"StackedHourglass: join='add' needs out_channels ({out_channels}) equal to channels ({channels})."
            )
        self.num_stacks = num_stacks
        self.num_keypoints = num_keypoints
        self.size_divisor = 4 * 2**depth
        self.with_cp = with_cp

        def residuals(*widths: int) -> nn.Sequential:
            return nn.Sequential(*(RESIDUALS[residual](a, b, norm_cfg) for a, b in zip(widths, widths[1:])))

        self.stem_conv = nn.Sequential(
            nn.Conv2d(3, stem_channels[0], 7, stride=2, padding=3),
            norm_layer(norm_cfg, stem_channels[0]),
            nn.ReLU(inplace=True),
            residuals(*stem_channels[:2]),
        )
        self.stem_residuals = residuals(*stem_channels[1:])

        self.hourglasses = nn.ModuleList()
        self.features = nn.ModuleList()
        self.scores = nn.ModuleList()
        self.joins = nn.ModuleList()
        in_channels, previous_channels = channels, stem_channels[1]
        for stack in range(num_stacks):
            last = stack == num_stacks - 1
            self.hourglasses.append(
                Hourglass(depth, in_channels, channels, out_channels, num_blocks, residuals)
            )
            if join == 'add':
                feature_channels = channels
                self.features.append(
                    nn.Sequential(
                        residuals(*[channels] * (num_blocks[1] + 1)), Linear(channels, channels, norm_cfg)
                    )
                )
            else:
                feature_channels = out_channels if last else channels
                self.features.append(
                    nn.Sequential(
                        Linear(out_channels, out_channels, norm_cfg),
                        Linear(out_channels, feature_channels, norm_cfg),
                    )
                )
            self.scores.append(nn.Conv2d(feature_channels, num_keypoints, 1))
            if last:
                break
            if join == 'add':
                self.joins.append(AddJoin(in_channels, feature_channels, num_keypoints))
            else:
                self.joins.append(ConcatJoin(feature_channels, previous_channels, num_keypoints))
                in_channels, previous_channels = feature_channels + previous_channels, feature_channels
        if channels_last:  # convolutions hand the format of their weights on to what they return
            self.to(memory_format=torch.channels_last)

    def check_input_size(self, height: int, width: int) -> None:
        """Raises an :class:`InputError` that names sizes which would work where (height, width) does not."""
        step = self.size_divisor
        if height % step or width % step or not height or not width:
            lower, upper = (
                [max(side // step, 1) * step, -(-side // step) * step] for side in (width, height)
            )
            raise InputError(
                f'StackedHourglass: an input of {width}x{height} pixels cannot be halved often enough; width and height must divide '
                f'by {step} (4 * 2**depth), such as width {" or ".join(map(str, sorted(set(lower))))} and height '
                f'{" or ".join(map(str, sorted(set(upper))))}: set input_size in the config.'
            )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """
        Args:
            image: (N, 3, H, W) normalised pictures; H and W divide by ``4 * 2**depth``.

        Returns:
            One (N, num_keypoints, H/4, W/4) tensor of heatmaps a stack, first to last.
        """
        self.check_input_size(*image.shape[-2:])
        pooled = F.max_pool2d(self.stem_conv(image), 2)
        x, previous = self.stem_residuals(pooled), pooled
        all_heatmaps = []
        for stack in range(self.num_stacks):
            features = self._features(stack, x)
            heatmaps = self.scores[stack](features)
            all_heatmaps.append(heatmaps)
            if stack < self.num_stacks - 1:
                x = self.joins[stack](x, features, heatmaps, previous)
                previous = features
        return tuple(all_heatmaps)

    def _features(self, stack: int, x: Tensor) -> Tensor:
        """The hourglass and what follows it up to the prediction: (N, in_channels, H/4, W/4) to (N, feature_channels, H/4, W/4)."""
        hourglass, features = self.hourglasses[stack], self.features[stack]

        def branch(x: Tensor) -> Tensor:
            return features(hourglass(x))

        if not (self.with_cp and self.training and torch.is_grad_enabled()):
            return branch(x)
        if is_compiling():  # a compiled graph repeats operations, not what they have done to buffers
            return checkpoint(branch, x, use_reentrant=False)
        # The second computation must not count the batch in the running statistics once more.
        return checkpoint(
            branch,
            x,
            use_reentrant=False,
            context_fn=lambda: (contextlib.nullcontext(), frozen_running_stats(hourglass, features)),
        )
