"""MMPose's top-down pose estimator, with the flip test in one pass."""

import torch
from mmengine.registry import MODELS
from mmpose.models import TopdownPoseEstimator
from mmpose.utils.typing import SampleList
from torch import Tensor


@MODELS.register_module()
class HourglassPoseEstimator(TopdownPoseEstimator):
    """A :class:`TopdownPoseEstimator` whose flip test sends N pictures and their N mirror images through in one batch.

    Arguments, losses, predictions and checkpoints are the same; the type ``TopdownPoseEstimator`` goes on working, with
    two passes. ``test_cfg=dict(flip_in_one_batch=False)`` brings the two passes back, which need half the memory.
    """

    def predict(self, inputs: Tensor, data_samples: SampleList) -> SampleList:
        """(N, 3, H, W) normalised pictures and their samples to the samples with ``pred_instances``, as MMPose has it."""
        if not self.test_cfg.get('flip_test', False) or not self.test_cfg.get('flip_in_one_batch', True):
            return super().predict(inputs, data_samples)
        feats = self.extract_feat(torch.cat([inputs, inputs.flip(-1)]))
        as_they_come_and_mirrored = list(zip(*(stage.chunk(2) for stage in feats)))
        preds = self.head.predict(as_they_come_and_mirrored, data_samples, test_cfg=self.test_cfg)
        instances, fields = preds if isinstance(preds, tuple) else (preds, None)
        return self.add_pred_to_datasample(instances, fields, data_samples)
