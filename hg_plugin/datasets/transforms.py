"""From a person in a picture to a network's input: one decoding, one warp, no copy on the way.

    GetBBoxCenterScale, LoadReducedImage, RandomPersonTransform, RandomMirror, TopdownWarp, PackKeypoints

take the place of MMPose's

    LoadImage, GetBBoxCenterScale, RandomFlip, RandomBBoxTransform, TopdownAffine, GenerateTarget, PackPoseInputs

which decodes the whole picture, mirrors the whole picture, and copies it once more to warp a mirrored one.
"""
from typing import Tuple

import cv2
import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine import fileio
from mmengine.registry import TRANSFORMS
from mmpose.datasets.transforms import LoadImage, RandomBBoxTransform, TopdownAffine
from mmpose.structures.bbox import get_udp_warp_matrix, get_warp_matrix

DECODE_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8
}
JPEG = b'\xff\xd8'


def picture_from_reduced(reduction: int) -> np.ndarray:
    """(3, 3) matrix from pixels of a picture decoded at 1 / ``reduction`` to the picture's own; a pixel's centre has whole coordinates."""
    middle = (reduction - 1) / 2
    return np.array([[reduction, 0, middle], [0, reduction, middle], [0, 0, 1.]])


@TRANSFORMS.register_module()
class LoadReducedImage(LoadImage):
    """Decodes a JPEG at a half, a quarter or an eighth of its size where the person is still at least as large as the input.

    The decoder then leaves out most of the work, and averages what a warp of the full picture would skip over. Other formats
    are decoded at full size. After ``GetBBoxCenterScale``, and before any ``RandomBBoxTransform``, so that one person is always
    decoded at one size. :class:`TopdownWarp` follows.

    Adds ``reduced_img`` and ``img_reduction`` (1, 2, 4 or 8), and ``img_shape`` and ``ori_shape``, (H, W) of the full picture, but for
    rounding up to a multiple of ``img_reduction``. Boxes and keypoints stay in pixels of the full picture, so that there is no
    ``img`` for transforms that would not know better.

    Args:
        input_size: Width and height of the network's input.
        min_scale: The smallest scale of the augmentation that follows, so that it does not magnify a reduced picture. Defaults to 1.
        backend_args: Where pictures are read from, see MMEngine's ``fileio``. Defaults to None: files.
    """

    def __init__(self, input_size: Tuple[int, int], min_scale: float = 1., backend_args=None):
        super().__init__(backend_args=backend_args)
        self.input_size = input_size
        self.min_scale = min_scale

    def reduction(self, bbox_scale: np.ndarray) -> int:
        """How far the picture of a person whose box is (w, h) pixels may shrink: 1, 2, 4 or 8."""
        # of width and height, TopdownWarp keeps the one that is larger for the input
        ratio = np.max(bbox_scale / self.input_size) * self.min_scale
        return max((reduction for reduction in DECODE_FLAGS if reduction <= ratio), default=1)

    def transform(self, results: dict) -> dict:
        if 'img' in results:
            results = super().transform(results)
            results.update(reduced_img=results.pop('img'), img_reduction=1)
            return results
        data = fileio.get(results['img_path'], backend_args=self.backend_args)
        reduction = self.reduction(results['bbox_scale'][0]) if data[:2] == JPEG else 1
        img = mmcv.imfrombytes(data, flag=DECODE_FLAGS[reduction], backend='cv2')
        if img is None:
            raise ValueError(f'{results["img_path"]} is no picture that OpenCV decodes.')
        shape = img.shape[0] * reduction, img.shape[1] * reduction
        results.update(reduced_img=img, img_reduction=reduction, img_shape=shape, ori_shape=shape)
        return results


@TRANSFORMS.register_module()
class RandomPersonTransform(RandomBBoxTransform):
    """MMPose's ``RandomBBoxTransform``, whose random numbers take a twentieth of the time: drawn again where they are too large, instead
    of by SciPy."""

    @staticmethod
    def _truncnorm(low: float = -1., high: float = 1., size: tuple = ()) -> np.ndarray:
        values = np.random.standard_normal(size)
        outside = (values < low) | (values > high)
        while outside.any():
            values[outside] = np.random.standard_normal(np.count_nonzero(outside))
            outside = (values < low) | (values > high)
        return values.astype(np.float32)


@TRANSFORMS.register_module()
class RandomMirror(BaseTransform):
    """Mirrors a person about the middle of their box: the keypoints here, the picture by the matrix of :class:`TopdownWarp`.

    After ``RandomPersonTransform``. The network sees what it would after ``RandomFlip``, which mirrors the picture's pixels.

    Args:
        prob: Share of persons that are mirrored. Defaults to 0.5.
    """

    def __init__(self, prob: float = 0.5):
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
        size = np.array(self.input_size, np.float32)
        results['bbox_scale'] = np.max(results['bbox_scale'] / size, axis=1, keepdims=True) * size  # the input's aspect ratio
        center, scale = results['bbox_center'][0], results['bbox_scale'][0]
        rotation = results['bbox_rotation'][0] if 'bbox_rotation' in results else 0.
        warp_matrix = get_udp_warp_matrix if self.use_udp else get_warp_matrix
        matrix = warp_matrix(center, scale, rotation, output_size=self.input_size)

        if 'keypoints' in results:
            results['transformed_keypoints'] = cv2.transform(results['keypoints'][..., :2], matrix)
        if 'mirror_axis' in results:
            matrix = matrix @ [[-1, 0, 2 * results.pop('mirror_axis')], [0, 1, 0], [0, 0, 1]]
        matrix = matrix @ picture_from_reduced(results.pop('img_reduction', 1))
        img = results.pop('reduced_img') if 'reduced_img' in results else results['img']
        results['img'] = cv2.warpAffine(img, matrix, self.input_size, flags=cv2.INTER_LINEAR)
        results.update(input_size=self.input_size, input_center=center, input_scale=scale)
        return results


@TRANSFORMS.register_module()
class PackKeypoints(BaseTransform):
    """The end of a training pipeline: three tensors a person, which ``default_collate`` makes three a batch.

    Gives ``inputs`` (3, H, W) uint8 and ``data_samples``: ``keypoints`` (K, 2) in input pixels and ``keypoints_visible`` (K,), both float32.
    The heatmaps are drawn from them by :class:`hg_plugin.models.HeatmapDataPreprocessor`. For tests, MMPose's
    ``PackPoseInputs`` keeps what metrics want to know.
    """

    def transform(self, results: dict) -> dict:
        img = results['img']
        planes = np.empty((3, *img.shape[:2]), np.uint8)
        cv2.split(img, list(planes))  # several times faster than a transposing copy
        return dict(
            inputs=torch.from_numpy(planes),
            data_samples=dict(
                keypoints=torch.from_numpy(results['transformed_keypoints'][0].astype(np.float32)),
                keypoints_visible=torch.from_numpy(results['keypoints_visible'][0].astype(np.float32))))
