"""Operations on heatmaps that several rooms share."""

import torch
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
