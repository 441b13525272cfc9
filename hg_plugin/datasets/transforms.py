"""From a person in a picture to a network's input: one decoding, one warp, no copy on the way.

    GetBBoxCenterScale, LoadReducedImage, RandomPersonTransform, RandomMirror, TopdownWarp, PackKeypoints

take the place of MMPose's

    LoadImage, GetBBoxCenterScale, RandomFlip, RandomBBoxTransform, TopdownAffine, GenerateTarget, PackPoseInputs

which decodes the whole picture, mirrors the whole picture, and copies it once more to warp a mirrored one.
"""

import io
import math

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.registry import TRANSFORMS
from mmpose.datasets.transforms import LoadImage, RandomBBoxTransform, TopdownAffine
from PIL import Image

from hg_plugin.utils.errors import InputError

DECODE_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
JPEG, JPEG_END = b'\xff\xd8', b'\xff\xd9'


def picture_from_reduced(reduction: int) -> np.ndarray:
    """(3, 3) matrix from pixels of a picture decoded at 1 / ``reduction`` to the picture's own; a pixel's centre has whole coordinates."""
    middle = (reduction - 1) / 2
    return np.array([[reduction, 0, middle], [0, reduction, middle], [0, 0, 1.0]])


@TRANSFORMS.register_module()
class LoadReducedImage(LoadImage):
    """Decodes a picture at a half, a quarter or an eighth of its size where the person is still at least as large as the input.

    A JPEG's decoder then leaves out most of the work, and averages what a warp of the full picture would skip over. Pictures in
    memory and other formats are averaged here, so that the network sees the same of them. After ``GetBBoxCenterScale``, and
    before any ``RandomBBoxTransform``, so that one person is always decoded at one size. :class:`TopdownWarp` follows.

    Adds ``reduced_img`` and ``img_reduction`` (1, 2, 4 or 8), and ``img_shape`` and ``ori_shape``, (H, W) of the full picture, but for
    rounding up to a multiple of ``img_reduction``. Boxes and keypoints stay in pixels of the full picture, so that there is no
    ``img`` for transforms that would not know better.

    Args:
        input_size: Width and height of the network's input.
        min_scale: The smallest scale of the augmentation that follows, so that it does not magnify a reduced picture. Defaults to 1.
        backend_args: Where pictures are read from, see MMEngine's ``fileio``. Defaults to None: files.

    Raises:
        InputError: for a ``min_scale`` that is not positive; at a call, for a picture that does not decode or was cut off.
    """

    def __init__(self, input_size: tuple[int, int], min_scale: float = 1.0, backend_args=None):
        if not min_scale > 0:
            raise InputError(
                f'LoadReducedImage: min_scale is {min_scale}; give the smallest scale of the augmentation, such as 0.75.'
            )
        super().__init__(backend_args=backend_args)
        self.input_size = input_size
        self.min_scale = min_scale

    def reduction(self, bbox_scale: np.ndarray) -> int:
        """How far the picture of a person whose box is (w, h) pixels may shrink: 1, 2, 4 or 8."""
        # of width and height, TopdownWarp keeps the one that is larger for the input
        ratio = np.max(bbox_scale / self.input_size) * self.min_scale
        return max((reduction for reduction in DECODE_FLAGS if reduction <= ratio), default=1)

    def transform(self, results: dict) -> dict:
        reduction = self.reduction(results['bbox_scale'][0])
        if 'img' in results:
            results = super().transform(results)
            img = average(results.pop('img'), reduction)
        else:
            data = fileio.get(results['img_path'], backend_args=self.backend_args)
            img = decode(data, reduction, results['img_path'])
        shape = img.shape[0] * reduction, img.shape[1] * reduction
        results.update(reduced_img=img, img_reduction=reduction, img_shape=shape, ori_shape=shape)
        return results


def decode(data: bytes, reduction: int, path: str) -> np.ndarray:
    """The picture (H, W, 3) in a file's bytes, at 1 / ``reduction`` of its size. Raises an :class:`InputError` for a damaged one."""
    jpeg = data[:2] == JPEG
    img = mmcv.imfrombytes(data, flag=DECODE_FLAGS[reduction if jpeg else 1], backend='cv2') if data else None
    if jpeg and JPEG_END not in data[-1024:]:  # OpenCV fills up with gray; files of other formats it refuses
        try:
            Image.open(io.BytesIO(data)).load()
        except OSError:
            img = None
    if img is None:
        raise InputError(f'{path} is no picture or was cut off; get it again.')
    return img if jpeg else average(img, reduction)


def average(img: np.ndarray, reduction: int) -> np.ndarray:
    """The picture at 1 / ``reduction`` of its size, rounded up, each pixel the mean of a square; a JPEG's decoder repeats edges too."""
    if reduction == 1:
        return img
    bottom, right = (-side % reduction for side in img.shape[:2])
    img = cv2.copyMakeBorder(img, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    return cv2.resize(
        img, (img.shape[1] // reduction, img.shape[0] // reduction), interpolation=cv2.INTER_AREA
    )


@TRANSFORMS.register_module()
class RandomPersonTransform(RandomBBoxTransform):
    """MMPose's ``RandomBBoxTransform`` for one person, with random numbers from NumPy: SciPy's take twenty times as long.

    The arguments and the distribution are the same: normal, cut at one deviation.
    """

    def transform(self, results: dict) -> dict:
        random = np.random.random
        if random() < self.shift_prob:
            shift = [[self.shift_factor * self._within_one(), self.shift_factor * self._within_one()]]
            results['bbox_center'] = results['bbox_center'] + results['bbox_scale'] * np.array(
                shift, np.float32
            )
        if random() < self.scale_prob:
            smallest, largest = self.scale_factor
            scale = (largest + smallest) / 2 + (largest - smallest) / 2 * self._within_one()
            results['bbox_scale'] = results['bbox_scale'] * np.float32(scale)
        rotation = self.rotate_factor * self._within_one() if random() < self.rotate_prob else 0.0
        results['bbox_rotation'] = np.array([rotation], np.float32)
        return results

    @staticmethod
    def _within_one() -> float:
        while abs(value := np.random.standard_normal()) > 1:
            pass
        return value


@TRANSFORMS.register_module()
class RandomMirror(BaseTransform):
    """Mirrors a person about the middle of their box: the keypoints here, the picture by the matrix of :class:`TopdownWarp`.

    After ``RandomPersonTransform``. The network sees what it would after ``RandomFlip``, which mirrors the picture's pixels.

    Args:
        prob: Share of persons that are mirrored. Defaults to 0.5.

    Raises:
        InputError: for a share that is none.
    """

    def __init__(self, prob: float = 0.5):
        if not 0 <= prob <= 1:
            raise InputError(f'RandomMirror: prob is {prob}; give a share from 0 to 1.')
        self.prob = prob

    def transform(self, results: dict) -> dict:
        results['flip'] = np.random.random() < self.prob
        if results['flip']:
            results['flip_direction'] = 'horizontal'
            results['mirror_axis'] = axis = float(results['bbox_center'][0, 0])
            keypoints = results['keypoints'][:, results['flip_indices']].copy()
            keypoints[..., 0] = 2 * axis - keypoints[..., 0]
            results['keypoints'] = keypoints
            results['keypoints_visible'] = results['keypoints_visible'][:, results['flip_indices']]
        return results


@TRANSFORMS.register_module()
class TopdownWarp(TopdownAffine):
    """MMPose's ``TopdownAffine`` in one warp: of a reduced picture or ``img``, mirrored or not.

    Args:
        input_size: Width and height of the network's input.
        use_udp: The matrix of UDP (Huang et al., CVPR 2020), for ``UDPHeatmap``. Defaults to False.
    """

    def transform(self, results: dict) -> dict:
        (center,), (rotation,) = results['bbox_center'], results.get('bbox_rotation', (0.0,))
        (width, height), input_size = results['bbox_scale'][0].tolist(), self.input_size
        enlarged = max(width / input_size[0], height / input_size[1])  # to the input's aspect ratio
        scale = np.array([enlarged * input_size[0], enlarged * input_size[1]], np.float32)
        matrix = self.matrix(*center.tolist(), *scale.tolist(), float(rotation))
        if 'keypoints' in results:
            results['transformed_keypoints'] = cv2.transform(results['keypoints'][..., :2], matrix)
        if 'mirror_axis' in results:
            matrix = matrix @ [[-1, 0, 2 * results.pop('mirror_axis')], [0, 1, 0], [0, 0, 1]]
        reduction = results.pop('img_reduction', 1)
        if reduction > 1:
            matrix = matrix @ picture_from_reduced(reduction)
        img = results.pop('reduced_img') if 'reduced_img' in results else results['img']
        results.update(
            img=cv2.warpAffine(img, matrix, input_size, flags=cv2.INTER_LINEAR),
            bbox_scale=scale[None],
            input_size=input_size,
            input_center=center,
            input_scale=scale,
        )
        return results

    def matrix(self, x: float, y: float, width: float, height: float, rotation: float) -> np.ndarray:
        """(2, 3) from a picture to the input, for a region about (x, y) turned by ``rotation`` degrees.

        MMPose's ``get_warp_matrix`` and ``get_udp_warp_matrix``, which turn in opposite directions, without their dozen arrays.
        """
        angle = math.radians(-rotation if self.use_udp else rotation)
        last = 1 if self.use_udp else 0
        right, bottom = self.input_size[0] - last, self.input_size[1] - last
        cos, sin = math.cos(angle), math.sin(angle)
        a, b = cos * right / width, sin * right / width
        c, d = -sin * bottom / height, cos * bottom / height
        return np.array([[a, b, right / 2 - a * x - b * y], [c, d, bottom / 2 - c * x - d * y]])


@TRANSFORMS.register_module()
class PackKeypoints(BaseTransform):
    """The end of a training pipeline: three tensors a person, which ``default_collate`` makes three a batch.

    Gives ``inputs`` (3, H, W) uint8 and ``data_samples``: ``keypoints`` (K, 2) in input pixels and ``keypoints_visible`` (K,), both float32.
    The heatmaps are drawn from them by :class:`hg_plugin.models.HeatmapDataPreprocessor`. For tests, MMPose's
    ``PackPoseInputs`` keeps what metrics want to know.
    """

    def transform(self, results: dict) -> dict:
        if 'transformed_keypoints' not in results or 'mirror_axis' in results:
            raise InputError(
                'PackKeypoints: the person was not warped to the input, or by a transform that does not know of RandomMirror; put '
                'TopdownWarp before.'
            )
        img = results['img']
        planes = np.empty((3, *img.shape[:2]), np.uint8)
        cv2.split(img, list(planes))  # several times faster than a transposing copy
        return dict(
            inputs=torch.from_numpy(planes),
            data_samples=dict(
                keypoints=torch.from_numpy(results['transformed_keypoints'][0].astype(np.float32)),
                keypoints_visible=torch.from_numpy(results['keypoints_visible'][0].astype(np.float32)),
            ),
        )
