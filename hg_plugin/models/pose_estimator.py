"""MMPose's top-down pose estimator with the flip test in one batch."""

import torch
from mmengine.registry import MODELS
from mmpose.models import TopdownPoseEstimator
from mmpose.utils.typing import SampleList
from torch import Tensor


@MODELS.register_module()
class HourglassPoseEstimator(TopdownPoseEstimator):
    """A :class:`TopdownPoseEstimator` whose flip test runs N images and the N flipped images in one batch.

    Arguments, losses, predictions and checkpoints are the same. ``test_cfg=dict(flip_in_one_batch=False)``
    makes two passes as :class:`TopdownPoseEstimator` does, which need half the memory.
    """

    def predict(self, inputs: Tensor, data_samples: SampleList) -> SampleList:
        """Add ``pred_instances`` to the samples of (N, 3, H, W) normalized images."""
        if not self.test_cfg.get('flip_test', False) or not self.test_cfg.get('flip_in_one_batch', True):
            return super().predict(inputs, data_samples)
        stages = self.extract_feat(torch.cat([inputs, inputs.flip(-1)]))
        feats, flipped_feats = zip(*(stage.chunk(2) for stage in stages))
        preds = self.head.predict([feats, flipped_feats], data_samples, test_cfg=self.test_cfg)
        instances, fields = preds if isinstance(preds, tuple) else (preds, None)
        return self.add_pred_to_datasample(instances, fields, data_samples)
