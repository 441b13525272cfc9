"""Target heatmaps of a whole batch, drawn where the keypoints are: on the GPU."""

import torch
from mmpose.codecs import MSRAHeatmap, UDPHeatmap
from torch import Tensor

from hg_plugin.utils.errors import InputError


def check_codec(codec) -> None:
    """Raises an :class:`InputError` for a codec whose targets :func:`draw_heatmaps` does not draw."""
    if (
        type(codec) not in (MSRAHeatmap, UDPHeatmap)
        or getattr(codec, 'heatmap_type', 'gaussian') != 'gaussian'
    ):
        raise InputError(
            f'Targets of the codec {type(codec).__name__} are not drawn on the device, only those of MSRAHeatmap and of '
            "UDPHeatmap with heatmap_type='gaussian'; leave encoder out of data_preprocessor, and end the training pipeline "
            'with GenerateTarget and PackPoseInputs.'
        )


def draw_heatmaps(keypoints: Tensor, visible: Tensor, codec) -> tuple[Tensor, Tensor]:
    """What ``codec.encode`` of MMPose draws of each person, for a batch and without a word to the host.

    A Gaussian is the product of one along x and one along y, so that only its outer product has the size of a heatmap.

    Args:
        keypoints: (N, K, 2) float32 in pixels of the network's input.
        visible: (N, K) float32; keypoints below 0.5 get an empty heatmap.
        codec: MMPose's ``MSRAHeatmap``, biased or not, or ``UDPHeatmap`` with Gaussians.

    Returns:
        (N, K, H, W) heatmaps that peak at 1, or beside it where a biased or cut Gaussian does; and (N, K) weights: ``visible``, and 0
        where a Gaussian lies outside.
    """
    (along_x, inside_x), (along_y, inside_y) = (
        _draw_along(axis, keypoints[..., axis], codec) for axis in (0, 1)
    )
    inside = inside_x & inside_y
    seen = visible >= 0.5
    along_y = along_y * (seen & inside).unsqueeze(2)
    return along_y.unsqueeze(3) * along_x.unsqueeze(2), visible.masked_fill(seen & ~inside, 0)


def _draw_along(axis: int, keypoints: Tensor, codec) -> tuple[Tensor, Tensor]:
    """(N, K, L) Gaussians along x (0) or y (1), and (N, K) whether they are partly inside, of coordinates (N, K)."""
    length, radius = codec.heatmap_size[axis], codec.sigma * 3
    mean = keypoints / float(codec.scale_factor[axis])
    pixels = torch.arange(length, device=keypoints.device, dtype=keypoints.dtype)
    if getattr(codec, 'unbiased', False):
        first, end, peak = mean - radius, mean + radius + 1, mean
    else:
        # cut to a square of whole pixels, which MMPose finds by rounding towards zero
        nearest = (mean + 0.5).trunc()
        first, end = (nearest - radius).trunc(), (nearest + radius + 1).trunc()
        peak = first + (2 * radius + 1) // 2
        if isinstance(codec, UDPHeatmap):
            peak = peak + (mean - nearest)
    gaussian = torch.exp(-((pixels - peak.unsqueeze(2)) ** 2) / (2 * codec.sigma**2))
    if not getattr(codec, 'unbiased', False):
        gaussian = gaussian * ((pixels >= first.unsqueeze(2)) & (pixels < end.unsqueeze(2)))
    return gaussian, (first < length) & (end >= 0)
