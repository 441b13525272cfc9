"""A heatmap head with a loss on every stage: intermediate supervision, Section 3.2 of the hourglass paper."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmpose.models.heads import CPMHead
from mmpose.models.utils.tta import flip_heatmaps
from mmpose.utils.typing import ConfigType, Features, OptConfigType, OptSampleList, Predictions
from torch import Tensor

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.heatmaps import heatmap_peaks


def average_flipped(
    heatmaps: Tensor, flipped: Tensor, flip_indices: Sequence[int], test_cfg: Mapping
) -> Tensor:
    """Average the heatmaps of images and of the flipped images: the flip test.

    Args:
        heatmaps: (N, K, H, W) of the images.
        flipped: (N, K, H, W) of the flipped images, as the network returns them.
        flip_indices: The K keypoints' indices after a flip.
        test_cfg: ``flip_mode`` ('heatmap') and ``shift_heatmap`` (False), as for MMPose's heads.

    Returns:
        (N, K, H, W).
    """
    flipped_back = flip_heatmaps(
        flipped.contiguous(),  # MMPose takes a view to flip offsets, and channels_last has none
        flip_mode=test_cfg.get('flip_mode', 'heatmap'),
        flip_indices=flip_indices,
        shift_heatmap=test_cfg.get('shift_heatmap', False),
    )
    return 0.5 * (heatmaps + flipped_back)


def peak_pck(pred: Tensor, target: Tensor, weights: Tensor, size: Sequence[int], thr: float = 0.05) -> Tensor:
    """Compute the share of heatmaps that peak at the right place, averaged over keypoints.

    On the device, unlike ``mmpose.evaluation.functional.pose_pck_accuracy``, which needs all heatmaps on the
    host to compute the same.

    Args:
        pred: (N, K, 2) pixels of the predicted peaks, see :func:`~hg_plugin.utils.heatmaps.heatmap_peaks`.
        target: (N, K, 2) pixels of the target peaks.
        weights: (N, K); keypoints of weight 0 do not count.
        size: Width and height of the heatmaps.
        thr: Largest distance, as a share of width and height. Defaults to 0.05.

    Returns:
        A scalar tensor in [0, 1]; 0 where no keypoint counts.
    """
    x, y = (pred - target).unbind(dim=2)
    counted = weights > 0
    correct = ((torch.hypot(x / size[0], y / size[1]) < thr) & counted).sum(dim=0)
    total = counted.sum(dim=0)
    return (correct / total.clamp(min=1)).sum() / (total > 0).sum().clamp(min=1)


@MODELS.register_module()
class MultiStageHeatmapHead(CPMHead):
    """MMPose's ``CPMHead`` with a logged loss for every stage; keypoints are decoded from the last stage.

    Without ``in_channels`` it has no parameters and takes the heatmaps of :class:`StackedHourglass`. With it,
    it takes features and replaces ``CPMHead`` behind ``HourglassNet`` and similar backbones: arguments and
    checkpoints are the same, and the losses of all stages add up to ``loss_kpt``.

    Args:
        in_channels: Channels of the backbone's features. Defaults to None: the backbone returns heatmaps.
        out_channels: Channels of a stage's heatmaps: the number of keypoints K, or 3K for a codec that also
            predicts offsets. Defaults to 16.
        num_stages: Stages that the backbone returns, S. Defaults to 2.
        deconv_out_channels: As in ``CPMHead``. Defaults to None: no deconvolutions.
        deconv_kernel_sizes: As in ``CPMHead``. Defaults to None.
        final_layer: Arguments of the convolutions from features to heatmaps. Defaults to
            ``dict(kernel_size=1)``.
        loss: An MMPose heatmap loss, or a list of S. Defaults to
            ``dict(type='KeypointMSELoss', use_target_weight=True)``. Outputs are heatmaps, unless the loss
            has a method ``to_heatmaps(output, codec)``, such as :class:`SpatialCrossEntropyLoss`.
        decoder: MMPose's codec that turns heatmaps into keypoints. Defaults to None, which suffices for
            training.
        init_cfg: MMEngine's initialization config. Defaults to that of ``CPMHead``.
        stage_weights: S factors of the stages' losses. Defaults to None: 1 each, as in the paper.

    Raises:
        InputError: If the number of stages or the shape of heatmaps differs between arguments, backbone and
            targets.
    """

    def __init__(
        self,
        in_channels: int | None = None,
        out_channels: int = 16,
        num_stages: int = 2,
        deconv_out_channels: Sequence[int] | None = None,
        deconv_kernel_sizes: Sequence[int] | None = None,
        final_layer: dict | None = dict(kernel_size=1),
        loss: ConfigType | list[ConfigType] = dict(type='KeypointMSELoss', use_target_weight=True),
        decoder: OptConfigType = None,
        init_cfg: OptConfigType = None,
        stage_weights: Sequence[float] | None = None,
    ):
        super().__init__(
            in_channels,
            out_channels,
            num_stages,
            deconv_out_channels,
            deconv_kernel_sizes,
            None if in_channels is None else final_layer,
            loss if isinstance(loss, list) else [loss] * num_stages,
            decoder,
            init_cfg,
        )
        self.stage_weights = tuple(stage_weights or [1.0] * num_stages)
        if len(self.stage_weights) != num_stages:
            raise InputError(
                f'MultiStageHeatmapHead: stage_weights has {len(self.stage_weights)} entries for '
                f'num_stages={num_stages}; give one a stage.'
            )

    def forward(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """S tensors of features (N, C, H, W) or heatmaps to S tensors of heatmaps (N, out_channels, H, W)."""
        return [self._to_heatmaps(stage, output) for stage, output in enumerate(self._outputs(feats))]

    def _to_heatmaps(self, stage: int, output: Tensor) -> Tensor:
        convert = getattr(self.loss_module[stage], 'to_heatmaps', None)
        return convert(output, self.decoder) if convert else output

    def _outputs(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """The S tensors that the losses take."""
        if len(feats) != self.num_stages:
            raise InputError(
                f'MultiStageHeatmapHead: num_stages={self.num_stages}, but the backbone returns {len(feats)} '
                "stages; set the head's num_stages to the backbone's num_stacks."
            )
        outputs = super().forward(feats)
        if outputs[-1].shape[1] != self.out_channels:
            raise InputError(
                f'MultiStageHeatmapHead: out_channels={self.out_channels}, but the backbone returns '
                f'{outputs[-1].shape[1]} channels; set out_channels to its num_keypoints, or in_channels if '
                'it returns features.'
            )
        return outputs

    def decode(self, batch_outputs: Tensor) -> Predictions:
        """Decode heatmaps (N, out_channels, H, W) to N ``InstanceData`` with keypoints in input pixels."""
        width, height = getattr(self.decoder, 'heatmap_size', batch_outputs.shape[:1:-1])
        if tuple(batch_outputs.shape[2:]) != (height, width):
            raise InputError(
                f'MultiStageHeatmapHead: the codec has a heatmap_size of {width}x{height}, but the heatmaps '
                f'have {batch_outputs.shape[3]}x{batch_outputs.shape[2]}; make it a quarter of input_size.'
            )
        return super().decode(batch_outputs)

    def loss(
        self,
        feats: Sequence[Tensor],
        batch_data_samples: Mapping[str, Tensor] | OptSampleList,
        train_cfg: OptConfigType = {},
    ) -> dict:
        """Compute the losses of a batch.

        Args:
            feats: S tensors, see :meth:`forward`.
            batch_data_samples: ``heatmaps`` (N, out_channels, H, W) and ``keypoint_weights`` (N, K) as
                :class:`HeatmapDataPreprocessor` returns them; or N samples with ``gt_fields.heatmaps`` and
                ``gt_instance_labels.keypoint_weights`` (1, K).
            train_cfg: ``compute_acc=False`` leaves out ``heatmap_peak`` and ``acc_pose``. Defaults to {}.

        Returns:
            ``loss_stage0`` .. ``loss_stage{S-1}``; ``heatmap_peak``, the mean maximum of the last stage's
            heatmaps of annotated keypoints, which stays near 0 when training has collapsed to empty heatmaps;
            and ``acc_pose``, see :func:`peak_pck`.
        """
        outputs = self._outputs(feats)
        if isinstance(batch_data_samples, Mapping) and 'heatmaps' in batch_data_samples:
            targets, weights = batch_data_samples['heatmaps'], batch_data_samples['keypoint_weights']
        elif not isinstance(batch_data_samples, Mapping) and 'gt_fields' in batch_data_samples[0]:
            targets = torch.stack([sample.gt_fields.heatmaps for sample in batch_data_samples])
            weights = torch.cat([sample.gt_instance_labels.keypoint_weights for sample in batch_data_samples])
        else:
            raise InputError(
                'MultiStageHeatmapHead: the samples have no target heatmaps; end train_pipeline with '
                'PackKeypoints and set model.codec, or end it with '
                'GenerateTarget and PackPoseInputs.'
            )
        if targets.shape != outputs[-1].shape:
            raise InputError(
                f'MultiStageHeatmapHead: heatmaps have the shape {tuple(outputs[-1].shape)}, but the '
                f"targets {tuple(targets.shape)}; make the codec's heatmap_size and the dataset's number of "
                'keypoints fit the network.'
            )
        losses = {}
        for stage, output in enumerate(outputs):
            loss = self.loss_module[stage](output, targets, weights)
            losses[f'loss_stage{stage}'] = self.stage_weights[stage] * loss
        if train_cfg.get('compute_acc', True):
            with torch.no_grad():
                step = targets.shape[1] // weights.shape[1]  # 3 where two offsets follow each heatmap
                maxima, peaks = heatmap_peaks(self._to_heatmaps(self.num_stages - 1, outputs[-1])[:, ::step])
                target_maxima, target_peaks = heatmap_peaks(targets[:, ::step])
                counted = weights * target_maxima > 0  # absent keypoints have weights, too
                losses['heatmap_peak'] = (maxima * counted).sum() / counted.sum().clamp(min=1)
                losses['acc_pose'] = peak_pck(peaks, target_peaks, counted, targets.shape[:1:-1])
        return losses

    def predict(
        self, feats: Features, batch_data_samples: OptSampleList, test_cfg: OptConfigType = {}
    ) -> Predictions:
        """Predict keypoints from the last stage.

        Args:
            feats: S tensors, see :meth:`forward`; for the flip test, a list of two such tuples: of the images
                and of the flipped images.
            batch_data_samples: N samples; the flip test reads their ``flip_indices``.
            test_cfg: ``flip_test``, ``flip_mode`` and ``shift_heatmap``, see :func:`average_flipped`;
                ``stage_keypoints`` also decodes the stages before the last; ``output_heatmaps`` also returns
                the last stage's heatmaps. Defaults to {}.

        Returns:
            N ``InstanceData`` with keypoints (1, K, 2) in input pixels and keypoint_scores (1, K), with
            ``stage_keypoints`` also those of every stage, (1, S, K, 2) in image pixels. With
            ``output_heatmaps`` also N ``PixelData`` with ``heatmaps`` (K, H, W).
        """
        if test_cfg.get('flip_test', False):
            flip_indices = batch_data_samples[0].metainfo['flip_indices']
            all_heatmaps = [
                average_flipped(heatmaps, flipped, flip_indices, test_cfg)
                for heatmaps, flipped in zip(*map(self.forward, feats))
            ]
        else:
            all_heatmaps = self.forward(feats)
        preds = self.decode(all_heatmaps[-1])
        if test_cfg.get('stage_keypoints', False):
            self._add_stage_keypoints([*map(self.decode, all_heatmaps[:-1]), preds], batch_data_samples)
        if not test_cfg.get('output_heatmaps', False):
            return preds
        return preds, [PixelData(heatmaps=heatmaps) for heatmaps in all_heatmaps[-1].detach()]

    @staticmethod
    def _add_stage_keypoints(stages: list[Predictions], batch_data_samples: OptSampleList) -> None:
        """Add the keypoints of all stages, in image pixels, to the predictions of the last one."""
        for *earlier, last, sample in zip(*stages, batch_data_samples):
            keypoints = np.stack([pred.keypoints for pred in (*earlier, last)], axis=1)
            # as TopdownPoseEstimator.add_pred_to_datasample does for the last stage
            size, scale, center = (sample.metainfo[f'input_{key}'] for key in ('size', 'scale', 'center'))
            last.stage_keypoints = keypoints / size * scale + center - 0.5 * scale
