"""A heatmap head with a loss on every stage: intermediate supervision, Section 3.2 of the stacked hourglass paper."""

from collections.abc import Mapping, Sequence

import torch
from mmcv.cnn import build_conv_layer
from mmengine.registry import MODELS
from mmengine.structures import PixelData
from mmpose.models.heads.base_head import BaseHead
from mmpose.models.utils.tta import flip_heatmaps
from mmpose.registry import KEYPOINT_CODECS
from mmpose.registry import MODELS as POSE_MODELS
from mmpose.utils.typing import ConfigType, Features, OptConfigType, OptSampleList, Predictions
from torch import Tensor, nn

from hg_plugin.utils.errors import InputError


def heatmap_peaks(heatmaps: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum of every heatmap and where it lies, found once, where the heatmaps are.

    Args:
        heatmaps: (N, K, H, W).

    Returns:
        Maxima (N, K) in float32, and places (N, K, 2), x and y as shares of width and height. Heatmaps without a positive value
        peak at pixel (-1, -1), as in ``mmpose.codecs.utils.get_heatmap_maximum``.
    """
    height, width = heatmaps.shape[-2:]
    values, index = heatmaps.flatten(2).max(dim=2)
    values = values.float()
    # in shares of the size; a tensor of the two sizes would have to come from the host
    xy = torch.stack([index % width / width, index.div(width, rounding_mode='floor') / height], dim=2)
    empty = torch.stack([torch.full_like(values, -1 / width), torch.full_like(values, -1 / height)], dim=2)
    return values, torch.where(values.unsqueeze(2) > 0, xy, empty)


def peak_pck(pred: Tensor, target: Tensor, weights: Tensor, thr: float = 0.05) -> Tensor:
    """Share of heatmaps that peak at the right place, averaged over keypoints.

    With :func:`heatmap_peaks` the same figure as ``mmpose.evaluation.functional.pose_pck_accuracy``, which copies all heatmaps to
    the host.

    Args:
        pred: (N, K, 2) places of the predicted peaks, see :func:`heatmap_peaks`.
        target: (N, K, 2) places of the right ones.
        weights: (N, K); keypoints of weight 0 do not count.
        thr: Largest distance of a right peak, as a share of the heatmap's width and height. Defaults to 0.05.

    Returns:
        A scalar tensor in [0, 1]; 0 where no keypoint counts.
    """
    distance = (pred - target).norm(dim=2)
    counted = weights > 0
    right = ((distance < thr) & counted).sum(dim=0)
    total = counted.sum(dim=0)
    accuracy = right / total.clamp(min=1)
    return accuracy.sum() / (total > 0).sum().clamp(min=1)


@MODELS.register_module()
class MultiStageHeatmapHead(BaseHead):
    """One loss a stage on the heatmaps of all stages; keypoints are decoded from the last stage.

    Without ``in_channels`` it has no parameters and takes heatmaps, as :class:`StackedHourglass` returns them. With it, each
    stage gets a convolution of its own from features to heatmaps, so that the head takes the place of MMPose's ``CPMHead`` (whose
    checkpoints it loads) behind ``HourglassNet`` and its like.

    Args:
        num_stages: Stages that the backbone returns, S.
        out_channels: Heatmaps of a stage: the number of keypoints K (3K for a codec that also predicts offsets).
        in_channels: Channels of the backbone's features. Defaults to None: the backbone returns heatmaps.
        final_layer: Arguments of the convolutions behind features. Defaults to ``dict(kernel_size=1)``.
        loss: Any MMPose heatmap loss, or a list of one a stage.
            Defaults to ``dict(type='KeypointMSELoss', use_target_weight=True)``.
        stage_weights: S factors of the stages' losses. Defaults to None: 1 each, as in the paper.
        decoder: MMPose's codec that turns heatmaps into keypoints. Defaults to None, which suffices for training.
        init_cfg: MMEngine's initialisation config. Defaults to a normal distribution of deviation 0.001, as in ``CPMHead``.
        deconv_out_channels: Of ``CPMHead``, whose deconvolutions this head does not have. Defaults to None, as in the hourglass's configs.

    Raises:
        InputError: for ``deconv_out_channels``, and where stages, keypoints or heatmap sizes of head, backbone and targets differ.
    """

    _version = 2

    def __init__(
        self,
        num_stages: int,
        out_channels: int,
        in_channels: int | None = None,
        final_layer: dict = dict(kernel_size=1),
        loss: ConfigType | list[ConfigType] = dict(type='KeypointMSELoss', use_target_weight=True),
        stage_weights: Sequence[float] | None = None,
        decoder: OptConfigType = None,
        init_cfg: OptConfigType = dict(type='Normal', layer='Conv2d', std=0.001),
        deconv_out_channels: Sequence[int] | None = None,
    ):
        super().__init__(init_cfg)
        if deconv_out_channels:
            raise InputError(
                f'MultiStageHeatmapHead: deconv_out_channels is {deconv_out_channels}, but it has no deconvolutions; leave it out, or '
                'keep CPMHead.'
            )
        self.num_stages = num_stages
        self.out_channels = out_channels
        self.stage_weights = tuple(stage_weights or [1.0] * num_stages)
        losses = loss if isinstance(loss, (list, tuple)) else [loss] * num_stages
        for name, values in dict(stage_weights=self.stage_weights, loss=losses).items():
            if len(values) != num_stages:
                raise InputError(
                    f'MultiStageHeatmapHead: {name} has {len(values)} entries for num_stages={num_stages}; give one a stage.'
                )
        self.loss_modules = nn.ModuleList(POSE_MODELS.build(cfg) for cfg in losses)
        self.decoder = None if decoder is None else KEYPOINT_CODECS.build(decoder)
        self.multi_final_layers = nn.ModuleList(
            nn.Identity()
            if in_channels is None
            else build_conv_layer(
                dict(type='Conv2d', in_channels=in_channels, out_channels=out_channels, kernel_size=1)
                | final_layer
            )
            for _ in range(num_stages)
        )

    def forward(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """S tensors of features (N, C, H, W), or of heatmaps already, to S tensors of heatmaps (N, out_channels, H, W)."""
        if len(feats) != self.num_stages:
            raise InputError(
                f'MultiStageHeatmapHead: num_stages={self.num_stages}, but the backbone returns {len(feats)} stages; '
                "set the head's num_stages to the backbone's num_stacks."
            )
        heatmaps = [layer(x) for layer, x in zip(self.multi_final_layers, feats)]
        if heatmaps[0].shape[1] != self.out_channels:
            raise InputError(
                f'MultiStageHeatmapHead: out_channels={self.out_channels}, but the backbone returns {heatmaps[0].shape[1]} '
                "heatmaps; set the head's out_channels to the backbone's num_keypoints, or give in_channels if "
                'these are features.'
            )
        size = getattr(self.decoder, 'heatmap_size', None)
        if size is not None and heatmaps[-1].shape[2:] != tuple(size[::-1]):
            raise InputError(
                f'MultiStageHeatmapHead: heatmaps have the size {tuple(heatmaps[-1].shape[:1:-1])}, but the decoder '
                f'{tuple(size)} (width, height); make heatmap_size of the codec a quarter of input_size.'
            )
        return heatmaps

    def loss(
        self,
        feats: Sequence[Tensor],
        batch_data_samples: dict[str, Tensor] | OptSampleList,
        train_cfg: OptConfigType = {},
    ) -> dict:
        """
        Args:
            feats: S tensors, see :meth:`forward`.
            batch_data_samples: What :class:`HeatmapDataPreprocessor` draws, ``heatmaps`` (N, K, H, W) and ``keypoint_weights`` (N, K); or
                N samples with ``gt_fields.heatmaps`` (K, H, W) and ``gt_instance_labels.keypoint_weights`` (1, K).
            train_cfg: ``compute_acc=False`` leaves the accuracy out. Defaults to {}.

        Returns:
            ``loss_stage0`` .. ``loss_stage{S-1}``; ``heatmap_peak``, the mean maximum of the last stage's heatmaps of annotated
            keypoints, which stays near 0 when a training has collapsed to empty heatmaps; and ``acc_pose``, see :func:`peak_pck`.
        """
        all_heatmaps = self.forward(feats)
        if isinstance(batch_data_samples, Mapping):
            targets, weights = batch_data_samples['heatmaps'], batch_data_samples['keypoint_weights']
        elif 'gt_fields' not in batch_data_samples[0]:
            raise InputError(
                'MultiStageHeatmapHead: the samples have no target heatmaps; end the training pipeline with PackKeypoints, or with '
                'GenerateTarget and PackPoseInputs.'
            )
        else:
            targets = torch.stack([sample.gt_fields.heatmaps for sample in batch_data_samples])
            weights = torch.cat([sample.gt_instance_labels.keypoint_weights for sample in batch_data_samples])
        if targets.shape != all_heatmaps[-1].shape:
            raise InputError(
                f'MultiStageHeatmapHead: heatmaps have shape {tuple(all_heatmaps[-1].shape)}, but the targets '
                f"{tuple(targets.shape)}; make the codec's heatmap_size and the data set's number of keypoints fit the "
                'network.'
            )
        losses = {
            f'loss_stage{stage}': weight * loss(heatmaps, targets, weights)
            for stage, (weight, loss, heatmaps) in enumerate(
                zip(self.stage_weights, self.loss_modules, all_heatmaps)
            )
        }
        if train_cfg.get('compute_acc', True):
            with torch.no_grad():
                maxima, places = heatmap_peaks(all_heatmaps[-1].detach())
                counted = weights > 0
                losses['heatmap_peak'] = (maxima * counted).sum() / counted.sum().clamp(min=1)
                losses['acc_pose'] = peak_pck(places, heatmap_peaks(targets)[1], weights)
        return losses

    def predict(
        self, feats: Features, batch_data_samples: OptSampleList, test_cfg: OptConfigType = {}
    ) -> Predictions:
        """
        Args:
            feats: S tensors, see :meth:`forward`; for the flip test a list of two such tuples, as they come and mirrored.
            batch_data_samples: N samples; their ``flip_indices`` serve the flip test.
            test_cfg: ``flip_test``, ``flip_mode`` ('heatmap'), ``shift_heatmap`` (False) as for MMPose's heads;
                ``output_heatmaps`` returns the last stage's heatmaps too, and ``output_stages`` those of every stage. Defaults to {}.

        Returns:
            N ``InstanceData`` with keypoints (1, K, 2) in input pixels and keypoint_scores (1, K); with ``output_heatmaps`` or
            ``output_stages`` also N ``PixelData`` with ``heatmaps`` (K, H, W) and, with the latter, ``heatmaps_stage{i}``.
        """
        if test_cfg.get('flip_test', False):
            flip_indices = batch_data_samples[0].metainfo['flip_indices']
            all_heatmaps = [
                0.5
                * (
                    heatmaps
                    + flip_heatmaps(
                        mirrored.contiguous(),  # flipping offsets needs it, and channels_last is not
                        flip_mode=test_cfg.get('flip_mode', 'heatmap'),
                        flip_indices=flip_indices,
                        shift_heatmap=test_cfg.get('shift_heatmap', False),
                    )
                )
                for heatmaps, mirrored in zip(*map(self.forward, feats))
            ]
        else:
            all_heatmaps = self.forward(feats)
        preds = self.decode(all_heatmaps[-1])
        if not (test_cfg.get('output_heatmaps', False) or test_cfg.get('output_stages', False)):
            return preds
        fields = [PixelData(heatmaps=heatmaps) for heatmaps in all_heatmaps[-1].detach()]
        if test_cfg.get('output_stages', False):
            for stage, heatmaps in enumerate(all_heatmaps):
                for field, sample_heatmaps in zip(fields, heatmaps.detach()):
                    field.set_field(sample_heatmaps, f'heatmaps_stage{stage}')
        return preds, fields
