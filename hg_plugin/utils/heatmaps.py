"""Operations on heatmaps that several rooms share."""

import torch
import torch.nn.functional as F
from torch import Tensor


def heatmap_peaks(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Find the maximum of every heatmap and its pixel, on the device and without a copy to the host.

    Args:
        heatmaps: (N, K, H, W).

    Returns:
        Maxima (N, K) float32 and pixels (N, K, 2) int64, x and y. The pixel of a heatmap without a positive
        value is (-1, -1), as in ``mmpose.codecs.utils.get_heatmap_maximum``.
    """
    maxima, index = heatmaps.flatten(2).max(dim=2)
    maxima = maxima.float()
    width = heatmaps.shape[3]
    pixels = torch.stack([index % width, index // width], dim=2)
    return maxima, pixels.masked_fill(maxima.unsqueeze(2) <= 0, -1)


def into_frame(stacks: Tensor, scale: float, use_udp: bool) -> tuple[Tensor, Tensor]:
    """Resample heatmaps (S, N, K, h, w) of crops of this scale to scale 1, with 0 outside.

    Args:
        stacks: The heatmaps.
        scale: Of the crops.
        use_udp: UDP scales a crop about the middle of its first and last pixel, other warps half a pixel
            beside it.

    Returns:
        The heatmaps, and (h, w) how much of each pixel the crops cover, from 0 to 1.
    """
    height, width = stacks.shape[-2:]
    if scale == 1:
        return stacks, stacks.new_ones(height, width)
    shift = 0 if use_udp else 1 - 1 / scale
    matrix = [[1 / scale, 0, shift / (width - 1)], [0, 1 / scale, shift / (height - 1)]]
    grid = F.affine_grid(stacks.new_tensor([matrix]), (1, 1, height, width), align_corners=True)

    def resample(maps):
        return F.grid_sample(maps, grid.expand(len(maps), -1, -1, -1), align_corners=True)

    covered = resample(stacks.new_ones(1, 1, height, width))[0, 0]
    return resample(stacks.flatten(0, 1)).view_as(stacks), covered
