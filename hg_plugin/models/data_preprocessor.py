"""From a batch of images and keypoints to the network's input and targets, on the device."""

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
    """Copy a batch to the device as a few tensors, normalize it and draw its target heatmaps there.

    MMPose's ``PoseDataPreprocessor`` copies and normalizes every image, heatmap and weight on its own.
    ``default_collate`` stacks the images and keypoints of :class:`hg_plugin.datasets.PackKeypoints`; lists
    from ``pseudo_collate`` work too, but slower. Samples of MMPose's ``PackPoseInputs`` keep their targets.

    Args:
        encoder: MMPose's codec that draws the targets. Defaults to None: samples have targets of their own.
        mean: Mean of every channel, 0 to 255. Defaults to None.
        std: Standard deviation of every channel. Defaults to None.
        bgr_to_rgb: Whether to convert images from BGR to RGB. Defaults to False.
        non_blocking: Whether to go on while pinned memory is copied. Defaults to True.

    Raises:
        InputError: ``mean`` and ``std`` differ in length; the targets of ``encoder`` cannot be drawn on the
            device; or images differ in size.
    """

    def __init__(
        self,
        encoder: dict | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        bgr_to_rgb: bool = False,
        non_blocking: bool = True,
    ):
        super().__init__(bgr_to_rgb=bgr_to_rgb, non_blocking=non_blocking)
        if len(mean or ()) != len(std or ()):
            raise InputError(
                f'HeatmapDataPreprocessor: mean is {mean} and std {std}; give both a value for every '
                'channel, or neither.'
            )
        self._enable_normalize = bool(mean)
        if mean and std:  # MMEngine's takes one or three, and keeps integers
            self.register_buffer('mean', torch.tensor(mean).float().view(-1, 1, 1), persistent=False)
            self.register_buffer('std', torch.tensor(std).float().view(-1, 1, 1), persistent=False)
        self.encoder = KEYPOINT_CODECS.build(encoder) if encoder else None
        if self.encoder:
            check_codec(self.encoder)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Convert a batch.

        Args:
            data: ``inputs``, images (N, C, H, W) or a list of N (C, H, W); and ``data_samples``, N samples or
                a dict of ``keypoints`` (N, K, 2) in input pixels and ``keypoints_visible`` (N, K).
            training: Ignored; MMEngine passes it.

        Returns:
            ``inputs`` (N, C, H, W) float32; and ``data_samples``, N samples as given or, with ``encoder``, a
            dict of ``heatmaps`` (N, K, h, w) and ``keypoint_weights`` (N, K).
        """
        samples = data.get('data_samples')
        if isinstance(samples, Mapping):
            samples = {key: _stack(values) for key, values in samples.items()}
        data = self.cast_data(dict(inputs=_stack(data['inputs']), data_samples=samples))
        images, samples = data['inputs'], data['data_samples']
        if self._channel_conversion:
            images = images.flip(1)
        images = (images - self.mean).div_(self.std) if self._enable_normalize else images.float()
        if isinstance(samples, Mapping) and self.encoder:
            heatmaps, weights = draw_heatmaps(
                samples['keypoints'], samples['keypoints_visible'], self.encoder
            )
            samples = dict(heatmaps=heatmaps, keypoint_weights=weights)
        return dict(inputs=images, data_samples=samples)


def _stack(tensors: Tensor | Sequence[Tensor]) -> Tensor:
    if isinstance(tensors, Tensor):
        return tensors
    shapes = {tuple(tensor.shape) for tensor in tensors}
    if len(shapes) > 1:
        raise InputError(
            f'HeatmapDataPreprocessor: samples of a batch have the shapes {shapes}; crop all images to the '
            "codec's input_size."
        )
    return torch.stack(tuple(tensors))
