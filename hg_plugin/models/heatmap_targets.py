"""Target heatmaps of a whole batch, drawn on the device."""

import torch
from mmpose.codecs import MSRAHeatmap, UDPHeatmap
from torch import Tensor

from hg_plugin.utils.errors import InputError


def check_codec(codec) -> None:
    """Raise an :class:`InputError` for a codec whose targets :func:`draw_heatmaps` does not draw."""
    if (
        type(codec) not in (MSRAHeatmap, UDPHeatmap)
        or getattr(codec, 'heatmap_type', 'gaussian') != 'gaussian'
    ):
        raise InputError(
            f'data_preprocessor.encoder: targets of the codec {type(codec).__name__} are not drawn on the '
            "device, only those of MSRAHeatmap and of UDPHeatmap with heatmap_type='gaussian'; set "
            'data_preprocessor.encoder=None, and end train_pipeline with GenerateTarget and PackPoseInputs.'
        )


def draw_heatmaps(keypoints: Tensor, visible: Tensor, codec) -> tuple[Tensor, Tensor]:
    """Draw the targets of ``codec.encode`` for a batch, without a copy to the host.

    A Gaussian is the outer product of one along x and one along y; only the product has a heatmap's size.

    Args:
        keypoints: (N, K, 2) float32 in pixels of the network's input.
        visible: (N, K) float32, the weights; keypoints of weight 0 get an empty heatmap.
        codec: MMPose's ``MSRAHeatmap``, biased or not, or ``UDPHeatmap`` with Gaussians.

    Returns:
        Heatmaps (N, K, H, W) with Gaussians of height 1, and weights (N, K): ``visible``, or 0 where the
        Gaussian lies outside the heatmap.
    """
    (along_x, inside_x), (along_y, inside_y) = (
        _gaussians(axis, keypoints[..., axis], codec) for axis in (0, 1)
    )
    inside = inside_x & inside_y
    annotated = visible > 0
    along_y = along_y * (annotated & inside).unsqueeze(2)
    return along_y.unsqueeze(3) * along_x.unsqueeze(2), visible.masked_fill(annotated & ~inside, 0)


def _gaussians(axis: int, keypoints: Tensor, codec) -> tuple[Tensor, Tensor]:
    """Gaussians (N, K, L) along x (0) or y (1) of coordinates (N, K), and (N, K) whether part is inside."""
    length, radius = codec.heatmap_size[axis], codec.sigma * 3
    mean = keypoints / float(codec.scale_factor[axis])
    pixels = torch.arange(length, device=keypoints.device, dtype=keypoints.dtype)
    if getattr(codec, 'unbiased', False):
        first, end, peak = mean - radius, mean + radius + 1, mean
        window = 1
    else:
        # MMPose cuts to a square of whole pixels, and rounds towards zero to find it
        nearest = (mean + 0.5).trunc()
        first, end = (nearest - radius).trunc(), (nearest + radius + 1).trunc()
        peak = first + (2 * radius + 1) // 2
        if isinstance(codec, UDPHeatmap):
            peak = peak + (mean - nearest)
        window = (pixels >= first.unsqueeze(2)) & (pixels < end.unsqueeze(2))
    gaussians = torch.exp(-((pixels - peak.unsqueeze(2)) ** 2) / (2 * codec.sigma**2)) * window
    return gaussians, (first < length) & (end >= 0)
