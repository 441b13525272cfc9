"""From a person in an image to a training sample, in one decoding and one warp.

    GetBBoxCenterScale, TopdownCrop, PackKeypoints

replace MMPose's

    LoadImage, GetBBoxCenterScale, RandomFlip, RandomBBoxTransform, TopdownAffine, GenerateTarget,
    PackPoseInputs
"""

import math

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.registry import TRANSFORMS
from mmpose.datasets.transforms import PackPoseInputs

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.images import decode, read_regular_file, reduce_image


def reduced_to_image(reduction: int) -> np.ndarray:
    """(3, 3) matrix from pixels of an image at 1 / ``reduction`` of its size to pixels of the image."""
    center = (reduction - 1) / 2
    return np.array([[reduction, 0, center], [0, reduction, center], [0, 0, 1.0]])


@TRANSFORMS.register_module()
class TopdownCrop(BaseTransform):
    """Crop a person from an image file to the network's input, with random scale, rotation, shift and flip.

    Replaces MMPose's ``LoadImage``, ``RandomBBoxTransform``, ``RandomFlip`` and ``TopdownAffine``. Random
    numbers are drawn first. Where the crop shrinks the image to 1/2, 1/4 or 1/8 or less, the image is
    decoded at that size.

    Transforms that change the box go before it (``GetBBoxCenterScale``, ``RandomHalfBody``), those that
    change colors go after it (``Albumentation``, ``PhotometricDistortion``). It removes ``bbox_center`` and
    ``img_shape``, so that transforms that change the box or move pixels fail after it.

    Required keys: ``bbox_center``, ``bbox_scale``; ``img_path`` or ``img``, an image in memory; for training
    ``keypoints``, ``keypoints_visible`` and ``flip_indices``. Added keys: those of ``TopdownAffine`` and
    ``RandomFlip``. ``keypoints`` stay in pixels of the image; a flip swaps left and right ones.

    Args:
        input_size: Width and height of the network's input.
        rotate_factor: Largest rotation in degrees. Defaults to 0.
        scale_factor: Smallest and largest scale of the box. Defaults to (1, 1).
        shift_factor: Largest shift as a share of the box, along x and y. Defaults to 0.
        flip_prob: Probability of a horizontal flip. Defaults to 0.
        use_udp: Use the matrix of UDP (Huang et al., CVPR 2020), for ``UDPHeatmap``. Defaults to False.
        rotate_prob: Probability of a rotation. Defaults to 1.
        shift_prob: Probability of a shift. Defaults to 1.
        backend_args: Where images are read from, see MMEngine's ``fileio``. Defaults to None: local files.

    Raises:
        InputError: If there is no box, the person is cropped already or targets are drawn already.
        ImageError: If the image cannot be read or is damaged.
    """

    def __init__(
        self,
        input_size: tuple[int, int],
        rotate_factor: float = 0.0,
        scale_factor: tuple[float, float] = (1.0, 1.0),
        shift_factor: float = 0.0,
        flip_prob: float = 0.0,
        use_udp: bool = False,
        rotate_prob: float = 1.0,
        shift_prob: float = 1.0,
        backend_args: dict | None = None,
    ):
        self.input_size = tuple(input_size)
        self.rotate_factor = rotate_factor
        self.scale_factor = tuple(scale_factor)
        self.shift_factor = shift_factor
        self.flip_prob = flip_prob
        self.use_udp = use_udp
        self.rotate_prob = rotate_prob
        self.shift_prob = shift_prob
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        if 'bbox_center' not in results or 'input_center' in results:
            raise InputError(
                'TopdownCrop needs the box of GetBBoxCenterScale and an image that is not cropped yet; '
                'put GetBBoxCenterScale before it, and leave out TopdownAffine and a second TopdownCrop.'
            )
        if 'keypoint_weights' in results:
            raise InputError('GenerateTarget has drawn keypoints of the image; put TopdownCrop before it.')
        center, box = results.pop('bbox_center')[0], results['bbox_scale'][0]
        rotation = float(results.pop('bbox_rotation', (0.0,))[0])
        results.pop('img_shape', None)
        if self.shift_factor and np.random.random() < self.shift_prob:
            shift = self.shift_factor * _truncated_normal(), self.shift_factor * _truncated_normal()
            center = center + box * np.array(shift, np.float32)
        if self.scale_factor != (1, 1):
            smallest, largest = self.scale_factor
            box = box * np.float32((smallest + largest + (largest - smallest) * _truncated_normal()) / 2)
        if self.rotate_factor and np.random.random() < self.rotate_prob:
            rotation += self.rotate_factor * _truncated_normal()
        flip = self.flip_prob > 0 and np.random.random() < self.flip_prob

        region, reduction = self.region(*box.tolist())
        image = self._load(results, reduction)
        x, y = center.tolist()
        matrix = self._matrix(x, y, *region, rotation)
        if flip:
            matrix = matrix @ [[-1, 0, 2 * x], [0, 1, 0], [0, 0, 1]]
            partners, count = results['flip_indices'], results['keypoints'].shape[1]
            # KeypointConverter leaves those of the former keypoints
            if [partners[k] for k in partners if k < len(partners)] != [*range(count)]:
                raise InputError(
                    f'flip_indices {partners} do not pair {count} keypoints; use KeypointConverter inside a '
                    'CombinedDataset, whose metainfo pairs the converted ones.'
                )
            for key in ('keypoints', 'keypoints_visible'):
                results[key] = results[key].take(partners, axis=1)
        to_reduced = matrix @ reduced_to_image(reduction) if reduction > 1 else matrix
        scale = np.array(region, np.float32)
        results.update(
            img=cv2.warpAffine(image, to_reduced, self.input_size, flags=cv2.INTER_LINEAR),
            flip=flip,
            flip_direction='horizontal' if flip else None,
            ori_shape=(image.shape[0] * reduction, image.shape[1] * reduction),
            bbox_scale=scale[None],
            input_size=self.input_size,
            input_center=center,
            input_scale=scale,
        )
        if 'keypoints' in results:
            results['transformed_keypoints'] = cv2.transform(results['keypoints'][..., :2], matrix)
        return results

    def region(self, width: float, height: float) -> tuple[tuple[float, float], int]:
        """Size of a box, widened to the input's aspect ratio, and by how much its image may be reduced."""
        shrinking = max(width / self.input_size[0], height / self.input_size[1])
        reduction = 8 if shrinking >= 8 else 4 if shrinking >= 4 else 2 if shrinking >= 2 else 1
        return (shrinking * self.input_size[0], shrinking * self.input_size[1]), reduction

    def _load(self, results: dict, reduction: int) -> np.ndarray:
        if 'img' in results:
            results.setdefault('img_path', None)
            return reduce_image(results['img'], reduction)
        path = results['img_path']
        local = self.backend_args is None and '://' not in str(path)
        data = read_regular_file(path) if local else fileio.get(path, self.backend_args)
        return decode(data, path, reduction)

    def _matrix(self, x: float, y: float, width: float, height: float, rotation: float) -> np.ndarray:
        """(2, 3) from the image to the input, for a region about (x, y), rotated by ``rotation`` degrees.

        Equals MMPose's ``get_warp_matrix`` and ``get_udp_warp_matrix``, which rotate in opposite directions.
        """
        angle = math.radians(-rotation if self.use_udp else rotation)
        right, bottom = (side - 1 if self.use_udp else side for side in self.input_size)
        cos, sin = math.cos(angle), math.sin(angle)
        a, b = cos * right / width, sin * right / width
        c, d = -sin * bottom / height, cos * bottom / height
        return np.array([[a, b, right / 2 - a * x - b * y], [c, d, bottom / 2 - c * x - d * y]])


def _truncated_normal() -> float:
    """A normally distributed number from -1 to 1; SciPy's ``truncnorm`` takes twenty times as long."""
    while abs(value := np.random.standard_normal()) > 1:
        pass
    return value


@TRANSFORMS.register_module()
class PackKeypoints(BaseTransform):
    """Pack a training sample as three tensors, which ``default_collate`` stacks to three a batch.

    Gives ``inputs`` (C, H, W) uint8, C = 3 but for images that MMPose's ``LoadImage`` loads with another
    ``color_type``, and ``data_samples``: ``keypoints`` (K, 2) in pixels of the input and
    ``keypoints_visible`` (K,), both float32. Where transforms have given visibility and weight, as
    ``KeypointConverter`` does, (1, K, 2), it is their product.
    :class:`hg_plugin.models.HeatmapDataPreprocessor` draws heatmaps from them. For validation use MMPose's
    ``PackPoseInputs``, which keeps what metrics read.

    Args:
        pack_transformed: Give what ``PackPoseInputs`` gives with this argument, to look at: MMPose's
            ``browse_dataset.py`` sets it. Defaults to False.
        use_dataset_keypoint_weights: Multiply visibility, the weight in the loss, by ``joint_weights`` of the
            metainfo, as MMPose's ``GenerateTarget`` does. Defaults to False.

    Raises:
        InputError: If the person is not cropped.
    """

    def __init__(self, pack_transformed: bool = False, use_dataset_keypoint_weights: bool = False):
        self.use_dataset_keypoint_weights = use_dataset_keypoint_weights
        self.pack_transformed = pack_transformed

    def transform(self, results: dict) -> dict:
        if 'transformed_keypoints' not in results:
            raise InputError(
                'PackKeypoints needs a cropped person with keypoints; put TopdownCrop before it.'
            )
        if self.pack_transformed:
            return PackPoseInputs(pack_transformed=True)(results)
        image, visible = results['img'], results['keypoints_visible'][0]
        height, width, *channels = image.shape
        planes = np.empty((*(channels or [1]), height, width), np.uint8)
        cv2.split(image, list(planes))  # several times faster than a transposing copy
        if visible.ndim == 2:
            visible = visible.prod(axis=1)
        if self.use_dataset_keypoint_weights:
            visible = visible * results['dataset_keypoint_weights']
        return dict(
            inputs=torch.from_numpy(planes),
            data_samples=dict(
                keypoints=torch.from_numpy(results['transformed_keypoints'][0].astype(np.float32)),
                keypoints_visible=torch.from_numpy(visible.astype(np.float32)),
            ),
        )
