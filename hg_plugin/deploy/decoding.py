"""Modules that an exported file holds around the backbone: input formats before it, decoding behind it."""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmpose.codecs import MSRAHeatmap, UDPHeatmap
from torch import Tensor, nn

from hg_plugin.utils.heatmaps import heatmap_peaks


class ImageFormat(NamedTuple):
    """Format of input images: (pixels 0..255 - mean) / std, with channels in the order of ``color``."""

    color: str
    mean: Sequence[float]
    std: Sequence[float]

    @classmethod
    def of_config(cls, cfg: Config) -> 'ImageFormat':
        """Return the format that the config's data preprocessor makes of BGR images."""
        settings = cfg.model.get('data_preprocessor') or {}
        color = 'RGB' if settings.get('bgr_to_rgb') or settings.get('rgb_to_bgr') else 'BGR'
        return cls(color, settings.get('mean') or (0,) * 3, settings.get('std') or (1,) * 3)

    def normalize(self, images: Tensor) -> Tensor:
        """Convert BGR pixels (N, 3, H, W) to this format."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return ((images if self.color == 'BGR' else images.flip(1)) - mean) / std


# Default arguments of rtmlib's ViTPose: BGR images, normalized with the mean and std of RGB.
RTMLIB = ImageFormat('BGR', (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


class ConvertFormat(nn.Conv2d):
    """Convert images (N, 3, H, W) from one format to another."""

    def __init__(self, source: ImageFormat, target: ImageFormat):
        super().__init__(3, 3, 1)
        order = [0, 1, 2] if source.color == target.color else [2, 1, 0]
        from_mean, from_std, mean, std = torch.tensor([*source[1:], *target[1:]], dtype=torch.float64)
        self.weight.data.copy_((torch.eye(3)[order] * (from_std[order] / std).view(3, 1))[..., None, None])
        self.bias.data.copy_((from_mean[order] - mean) / std)


class LastHeatmaps(nn.Module):
    """Last heatmaps of a pose estimator: (N, 3, H, W) to (N, K, H/4, W/4)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def forward(self, image: Tensor) -> Tensor:
        return self.head.forward(self.backbone(image))[-1]


class MSRADecoder(nn.Module):
    """MMPose's ``MSRAHeatmap.decode``, without ``unbiased``: peaks, and a quarter pixel to higher neighbours.

    Like MMPose, it does not refine a peak on the border or in the second column or row.
    """

    def __init__(self, codec: MSRAHeatmap):
        super().__init__()
        self.register_buffer('scale_factor', torch.from_numpy(codec.scale_factor))

    def forward(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Decode (N, K, H, W) to keypoints (N, K, 2), negative where all values are, and scores (N, K)."""
        height, width = heatmaps.shape[2:]
        values = heatmaps.flatten(2)
        scores, peaks = heatmap_peaks(heatmaps)
        x, y = peaks.unbind(dim=2)
        index = y * width + x

        def value_at(index: Tensor) -> Tensor:
            return values.gather(2, index.clamp(0, height * width - 1).unsqueeze(2)).squeeze(2)

        right, left = value_at(index + 1), value_at(index - 1)
        below, above = value_at(index + width), value_at(index - width)
        dx = (right - left).sign() * ((x > 1) & (x < width - 1) & (y > 0))
        dy = (below - above).sign() * ((y > 1) & (y < height - 1) & (x > 0))
        return (peaks + 0.25 * torch.stack([dx, dy], dim=2)) * self.scale_factor, scores


class UDPDecoder(nn.Module):
    """MMPose's ``UDPHeatmap.decode`` of Gaussian heatmaps: peaks, refined by derivatives of the logarithm.

    Source: Huang et al., "The Devil is in the Details" (CVPR 2020), and Zhang et al., "Distribution-Aware
    Coordinate Representation for Human Pose Estimation" (CVPR 2020).
    """

    def __init__(self, codec: UDPHeatmap):
        super().__init__()
        size = np.array(codec.input_size) / (np.array(codec.heatmap_size) - 1)
        self.register_buffer('scale_factor', torch.tensor(size, dtype=torch.float32))
        kernel = cv2.getGaussianKernel(codec.blur_kernel_size, 0, cv2.CV_32F)
        self.register_buffer('kernel', torch.from_numpy(kernel @ kernel.T)[None, None])

    def forward(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """Decode (N, K, H, W) to keypoints (N, K, 2) and scores (N, K)."""
        scores, peaks = heatmap_peaks(heatmaps)
        height, width = heatmaps.shape[2:]
        blurred = F.conv2d(heatmaps.flatten(0, 1)[:, None], self.kernel, padding='same').view_as(heatmaps)
        highest = blurred.amax(dim=(2, 3), keepdim=True)
        blurred = blurred * scores[..., None, None] / torch.where(highest == 0, 1.0, highest)
        logs = F.pad(blurred.clamp(1e-3, 50.0).log(), (1, 1, 1, 1), mode='replicate').flatten(2)
        x, y = peaks.clamp(min=0).unbind(dim=2)
        index = x + 1 + (y + 1) * (width + 2)

        def at(dx: int, dy: int) -> Tensor:
            return logs.gather(2, (index + dx + dy * (width + 2)).unsqueeze(2)).squeeze(2)

        here, left, right, above, below = at(0, 0), at(-1, 0), at(1, 0), at(0, -1), at(0, 1)
        dx, dy = (right - left) / 2, (below - above) / 2
        eps = torch.finfo(torch.float32).eps
        dxx, dyy = right - 2 * here + left + eps, below - 2 * here + above + eps
        dxy = (at(1, 1) - right - below + 2 * here - left - above + at(-1, -1)) / 2
        # the inverse of the Hessian, times the gradient
        step = torch.stack([dyy * dx - dxy * dy, dxx * dy - dxy * dx], dim=2)
        step = step / (dxx * dyy - dxy * dxy).unsqueeze(2)
        return (peaks - step) * self.scale_factor, scores


class Redraw(nn.Module):
    """Draw heatmaps from which rtmlib's ViTPose decodes the given keypoints and scores.

    ViTPose refines peaks as for the codec UDPHeatmap, which is up to a pixel off on heatmaps of MSRAHeatmap.
    It also blurs heatmaps with reflected borders, which moves peaks within 8 pixels of the input's border by
    up to 4 pixels. To keep both errors small, these heatmaps have half the size of the input, not a quarter.

    Args:
        input_size: (W, H) of the input in pixels.
        udp: Whether the network's crops are those of UDP, which are W - 1 pixels wide. Those of rtmlib are W.
    """

    def __init__(self, input_size: Sequence[int], udp: bool = False):
        super().__init__()
        self.input_size = input_size
        self.shares = [1 / size * (1 - udp / size) for size in input_size]  # of the crop, a pixel

    def forward(self, decoded: tuple[Tensor, Tensor]) -> Tensor:
        """Draw keypoints (N, K, 2) in input pixels and scores (N, K) as heatmaps (N, K, H/2, W/2)."""
        keypoints, scores = decoded

        def gaussian(axis: int) -> Tensor:
            size = self.input_size[axis] // 2
            position = keypoints[..., axis, None] * ((size - 1) * self.shares[axis])
            squares = (torch.arange(size, device=keypoints.device) - position).square()
            return torch.exp((squares.amin(dim=2, keepdim=True) - squares) / 2)

        return scores[..., None, None] * gaussian(1).unsqueeze(3) * gaussian(0).unsqueeze(2)
