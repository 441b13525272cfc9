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
        visible: (N, K) float32, the weights; keypoints of weight 0 get an empty heatmap, and so do those of
            negative weight, which are annotated as absent. Those below 0.5 are drawn, too, where MMPose's
            codecs leave the heatmap empty and keep the weight.
        codec: MMPose's ``MSRAHeatmap``, biased or not, or ``UDPHeatmap`` with Gaussians.

    Returns:
        Heatmaps (N, K, H, W) with Gaussians of height 1, and weights (N, K): ``visible`` without its sign, or
        0 where the Gaussian lies outside the heatmap or the keypoint is NaN.
    """
    # COCO's files may hold NaN for keypoints that are not annotated, and 0 * NaN is NaN: move them far away
    keypoints = keypoints.nan_to_num(nan=-1e6)
    udp = isinstance(codec, UDPHeatmap)
    scales = [(i - udp) / (h - udp) for i, h in zip(codec.input_size, codec.heatmap_size)]
    mean = torch.stack([keypoints[..., axis] / scales[axis] for axis in (0, 1)], dim=2)  # (N, K, 2)
    radius, unbiased = codec.sigma * 3, getattr(codec, 'unbiased', False)
    if unbiased:
        first, end, peak = mean - radius, mean + (radius + 1), mean
    else:
        # MMPose cuts to a square of whole pixels, and rounds towards zero to find it
        nearest = (mean + 0.5).trunc()
        first, end = (nearest - radius).trunc(), (nearest + (radius + 1)).trunc()
        peak = first + (2 * radius + 1) // 2
        if udp:
            peak = peak + (mean - nearest)
    drawn = (visible > 0) & (end >= 0).all(dim=2)
    along = []
    for axis, length in enumerate(codec.heatmap_size):
        drawn = drawn & (first[..., axis] < length)
        pixels = torch.arange(length, device=keypoints.device, dtype=keypoints.dtype)
        gaussians = torch.exp((pixels - peak[..., axis, None]) ** 2 / (-2 * codec.sigma**2))
        if not unbiased:
            gaussians = gaussians * ((pixels >= first[..., axis, None]) & (pixels < end[..., axis, None]))
        along.append(gaussians)
    along_x, along_y = along
    heatmaps = (along_y * drawn.unsqueeze(2)).unsqueeze(3) * along_x.unsqueeze(2)
    return heatmaps, visible.where(drawn, (-visible).relu())
