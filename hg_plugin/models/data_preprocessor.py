"""From a batch of pictures and keypoints to a network's input and targets, on the device."""

from collections.abc import Mapping, Sequence

import torch
from mmengine.model import ImgDataPreprocessor
from mmengine.registry import MODELS
from mmpose.registry import KEYPOINT_CODECS
from torch import Tensor

from hg_plugin.utils.errors import InputError

from .heatmap_targets import check_codec, draw_heatmaps


@MODELS.register_module()
class HeatmapDataPreprocessor(ImgDataPreprocessor):
    """Moves a batch to the device as a few tensors, normalises it there, and draws its target heatmaps there.

    Pictures and the keypoints of :class:`hg_plugin.datasets.PackKeypoints` come stacked from ``default_collate``, or as lists of N from
    ``pseudo_collate``, which is slower; samples of MMPose's ``PackPoseInputs``, for tests or with targets of their own,
    pass through. With ``PoseDataPreprocessor`` in its place, every picture, heatmap and weight is a copy and a kernel of its own.

    Args:
        encoder: MMPose's codec that the targets are drawn by. Defaults to None: samples bring their own.
        mean: Means of the three channels, 0 to 255. Defaults to None.
        std: Deviations of the three channels. Defaults to None.
        bgr_to_rgb: Pictures come as BGR, and the network wants RGB. Defaults to False.
        non_blocking: Go on while pinned memory is copied. Defaults to True.

    Raises:
        InputError: for a codec whose targets are not drawn here, and means and deviations that are none; at a call, for pictures of
            different sizes, and for keypoints without an ``encoder``.
    """

    def __init__(
        self,
        encoder: dict | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        bgr_to_rgb: bool = False,
        non_blocking: bool = True,
    ):
        if (
            (mean is None) != (std is None)
            or any(values is not None and len(values) != 3 for values in (mean, std))
            or 0 in (std or ())
        ):
            raise InputError(
                f'model.data_preprocessor: mean is {mean} and std {std}; give three numbers each, no std of which is 0, or neither.'
            )
        # MMEngine keeps whole numbers as integers, by which a picture cannot be divided in place
        mean, std = (values and [float(value) for value in values] for values in (mean, std))
        super().__init__(mean=mean, std=std, bgr_to_rgb=bgr_to_rgb, non_blocking=non_blocking)
        self.encoder = KEYPOINT_CODECS.build(encoder) if encoder else None
        if self.encoder:
            check_codec(self.encoder)

    def forward(self, data: dict, training: bool = False) -> dict:
        """
        Args:
            data: ``inputs``, pictures (N, 3, H, W) or a list of N (3, H, W); and ``data_samples``, either ``keypoints`` (N, K, 2) in
                input pixels and ``keypoints_visible`` (N, K), or a list of N samples.
            training: Not used; MMEngine passes it.

        Returns:
            ``inputs`` (N, 3, H, W) float32, and ``data_samples``: ``heatmaps`` (N, K, h, w) and ``keypoint_weights`` (N, K), or the samples.
        """
        samples = data.get('data_samples')
        if isinstance(samples, Mapping):
            samples = {
                key: values if isinstance(values, Tensor) else torch.stack(values)
                for key, values in samples.items()
            }
        data = self.cast_data(dict(inputs=_stack(data['inputs']), data_samples=samples))
        images, samples = data['inputs'], data['data_samples']
        if self._channel_conversion:
            images = images.flip(1)
        images = (images - self.mean).div_(self.std) if self._enable_normalize else images.float()
        if isinstance(samples, Mapping):
            samples = self._targets(**samples)
        return dict(inputs=images, data_samples=samples)

    def _targets(self, keypoints: Tensor, keypoints_visible: Tensor) -> dict:
        if self.encoder is None:
            raise InputError(
                'The training pipeline ends with PackKeypoints, but model.data_preprocessor has no encoder to draw their '
                'heatmaps by; set it to the codec of model.head.decoder.'
            )
        heatmaps, weights = draw_heatmaps(keypoints, keypoints_visible, self.encoder)
        return dict(heatmaps=heatmaps, keypoint_weights=weights)


def _stack(images) -> Tensor:
    if isinstance(images, Tensor):
        return images
    sizes = sorted({tuple(image.shape[:0:-1]) for image in images})
    if len(sizes) > 1:
        raise InputError(
            f'The pictures of a batch have {len(sizes)} sizes, such as {sizes[0]} and {sizes[1]} (width, height); end the pipeline with a '
            'TopdownCrop or TopdownAffine that makes all of input_size.'
        )
    return torch.stack(tuple(images))
