"""MMPose's top-down pose estimator with one codec for both directions, and the flip test in one batch."""

import inspect

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from mmpose.models import TopdownPoseEstimator
from mmpose.registry import MODELS as POSE_MODELS
from mmpose.utils.typing import ConfigType, OptConfigType, SampleList
from torch import Tensor

from hg_plugin.utils.errors import InputError

from .multi_stage_heatmap_head import MultiStageHeatmapHead

# arguments of the head, and those of the backbone that they equal
PASSED_ON = dict(num_stages='num_stacks', out_channels='num_keypoints')


@MODELS.register_module()
class HourglassPoseEstimator(TopdownPoseEstimator):
    """A :class:`TopdownPoseEstimator` that takes its codec once, and whose flip test is one batch.

    Losses, predictions and checkpoints are the same. The flip test runs N images and the N flipped images in
    one batch; ``test_cfg=dict(flip_in_one_batch=False)`` makes two passes as :class:`TopdownPoseEstimator`
    does, which need half the memory. With ``compile``, network and losses are one graph, and the data
    preprocessor another.

    Args:
        backbone: Config of the backbone.
        head: Config of the head. A :class:`MultiStageHeatmapHead` has as many stages and channels as the
            backbone has ``num_stacks`` and ``num_keypoints``, unless ``num_stages`` and ``out_channels`` say
            otherwise. Defaults to None.
        data_preprocessor: Config of the data preprocessor. Defaults to None.
        codec: The ``decoder`` of the head and the ``encoder`` of a data preprocessor that takes one, unless
            they have their own. Defaults to None.
        **kwargs: ``neck``, ``train_cfg``, ``test_cfg``, ``init_cfg`` and ``metainfo``, as for
            :class:`TopdownPoseEstimator`.

    Raises:
        InputError: In a forward pass, if images do not have the codec's ``input_size``.
    """

    def __init__(
        self,
        backbone: ConfigType,
        head: OptConfigType = None,
        data_preprocessor: OptConfigType = None,
        codec: OptConfigType = None,
        **kwargs,
    ):
        if head and isinstance(backbone, dict) and issubclass(_class_of(head), MultiStageHeatmapHead):
            head = {**{own: backbone[its] for own, its in PASSED_ON.items() if its in backbone}, **head}
        if head and codec:
            head = {'decoder': codec, **head}
        if data_preprocessor and codec:
            if 'encoder' in inspect.signature(_class_of(data_preprocessor)).parameters:
                data_preprocessor = {'encoder': codec, **data_preprocessor}
        super().__init__(backbone, head=head, data_preprocessor=data_preprocessor, **kwargs)

    def forward(self, inputs: Tensor, *args, **kwargs):
        """Check the size of (N, 3, H, W) normalized images, and run :meth:`loss` or :meth:`predict`."""
        size = getattr(getattr(self.head, 'decoder', None), 'input_size', None)
        if size is not None and tuple(size) != tuple(inputs.shape[:1:-1]):
            raise InputError(
                f'The images have {inputs.shape[3]}x{inputs.shape[2]} pixels, but the codec of the model has '
                f'input_size={tuple(size)}; give the crop of the pipeline that input_size.'
            )
        return super().forward(inputs, *args, **kwargs)

    # compiled whole, it would break where the optimizer is called; so its parts are, one by one
    @torch._disable_dynamo(recursive=False)
    def train_step(self, data: dict, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        """Train on a batch, and return the losses by name."""
        with optim_wrapper.optim_context(self):
            data = self.data_preprocessor(data, True)
            loss, logged = self._parsed_losses(data)
        optim_wrapper.update_params(loss)
        return logged

    def _parsed_losses(self, data: dict) -> tuple[Tensor, dict[str, Tensor]]:
        return self.parse_losses(self._run_forward(data, mode='loss'))

    def predict(self, inputs: Tensor, data_samples: SampleList) -> SampleList:
        """Add ``pred_instances`` to the samples of (N, 3, H, W) normalized images."""
        if not self.test_cfg.get('flip_test', False) or not self.test_cfg.get('flip_in_one_batch', True):
            return super().predict(inputs, data_samples)
        stages = self.extract_feat(torch.cat([inputs, inputs.flip(-1)]))
        feats, flipped_feats = zip(*(stage.chunk(2) for stage in stages))
        preds = self.head.predict([feats, flipped_feats], data_samples, test_cfg=self.test_cfg)
        instances, fields = preds if isinstance(preds, tuple) else (preds, None)
        return self.add_pred_to_datasample(instances, fields, data_samples)


def _class_of(config: ConfigType) -> type:
    kind = config['type']
    return (POSE_MODELS.get(kind) if isinstance(kind, str) else kind) or object
