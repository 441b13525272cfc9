"""Losses of heatmaps that MMPose does not have."""

import math

import torch
import torch.nn.functional as F
from mmengine.registry import MODELS
from torch import Tensor, nn


@MODELS.register_module()
class SpatialCrossEntropyLoss(nn.Module):
    """Cross-entropy between the target heatmap and the softmax of the output over all pixels.

    A heatmap is the distribution of one keypoint's position, as in the keypoint branch of Mask R-CNN (He et
    al., 2017), with the codec's Gaussian in place of its single pixel. The pixels of a heatmap compete, so
    the 99 % that are empty cannot outweigh the peak: a small network learns several times as fast as with
    ``KeypointMSELoss``, see docs/recipe.md. The network's outputs are logits then, which
    :meth:`to_heatmaps` turns into heatmaps.

    Args:
        use_target_weight: Leave out keypoints of weight 0, and weigh the others. A keypoint with a weight
            but an empty heatmap is absent: its target is the same share for all pixels. Defaults to True.
        loss_weight: Factor of the loss. Defaults to 1.
    """

    def __init__(self, use_target_weight: bool = True, loss_weight: float = 1.0):
        super().__init__()
        self.use_target_weight = use_target_weight
        self.loss_weight = loss_weight

    def forward(self, output: Tensor, target: Tensor, target_weights: Tensor) -> Tensor:
        """Compute the mean over keypoints.

        Args:
            output: (N, K, H, W) logits.
            target: (N, K, H, W) heatmaps. Empty ones do not count without weights.
            target_weights: (N, K).

        Returns:
            A scalar tensor in nats.
        """
        target = target.flatten(2)
        sums = target.sum(dim=2, keepdim=True)
        present = sums > 0
        weights = target_weights if self.use_target_weight else present[..., 0].to(target.dtype)
        log_shares = F.log_softmax(output.float().flatten(2), dim=2)
        shares = torch.where(present, target / sums.clamp(min=1e-6), 1 / target.shape[2])
        losses = -(shares * log_shares).sum(dim=2) * weights
        return self.loss_weight * losses.sum() / weights.sum().clamp(min=1)

    @staticmethod
    def to_heatmaps(output: Tensor, codec) -> Tensor:
        """Turn logits into heatmaps. :class:`MultiStageHeatmapHead` asks every loss that has this method.

        Args:
            output: (N, K, H, W) logits.
            codec: The head's, whose ``sigma`` in heatmap pixels scales heatmaps: one that equals its target
                peaks at 1. Without ``sigma``, heatmaps sum to 1.

        Returns:
            (N, K, H, W).
        """
        shares = output.float().flatten(2).softmax(dim=2).view_as(output)
        sigma = getattr(codec, 'sigma', None)
        return (shares if sigma is None else shares * (2 * math.pi * sigma**2)).to(output.dtype)
