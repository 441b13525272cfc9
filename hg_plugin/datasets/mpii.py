"""MPII Human Pose, and any data set in its layout, without the pixel shift of MMPose 1.x."""

import json
import os.path as osp

import cv2
import mmpose
import numpy as np
from mmengine.registry import DATASETS
from mmpose.datasets.datasets.base import BaseCocoStyleDataset

from hg_plugin.mpii_format import CENTER_SHIFT, PIXELS_A_SCALE, load_ground_truth
from hg_plugin.utils.errors import InputError

LONGEST_SIDE = 2**15 - 1  # of a picture that OpenCV can cut crops from

METAINFO_KEYS = (
    'dataset_name',
    'upper_body_ids',
    'lower_body_ids',
    'flip_pairs',
    'dataset_keypoint_weights',
    'flip_indices',
    'skeleton_links',
)
KEYS = dict(image=(), center=(2,), scale=(), joints=(16, 2), joints_vis=(16,))


@DATASETS.register_module()
class MPIIPoseDataset(BaseCocoStyleDataset):
    """Single persons in the MPII layout; one item a person, in the order of the annotation file.

    An annotation file is a list of ``{image, center [x, y], scale, joints 16x2, joints_vis 16}`` in MPII's 1-based pixels. Everything
    is made 0-based here, once: ``keypoints`` (1, 16, 2), ``bbox`` (1, 4), the square of ``200 * scale`` pixels around the lowered
    centre, which ``GetBBoxCenterScale`` widens by 1.25 to the paper's crop. With ``headbox_file`` there is also ``head_size``
    (1, 1), and the joints come from that file, as in published figures (13 of MPII's differ): see
    :func:`hg_plugin.evaluation.load_ground_truth`.

    A test set, where no joint of anybody is annotated, can be tested on only: its keypoints mean nothing, and ``ann_file`` is in its
    ``metainfo``, where :class:`hg_plugin.evaluation.MPIISubmission` finds it.

    MMPose's own ``MpiiDataset`` shifts the centre to 0-based pixels and leaves the joints 1-based.

    Args:
        ann_file: The annotations, relative to ``data_root``.
        headbox_file: ``mpii_gt_val.mat``, which :class:`hg_plugin.evaluation.MPIIPCKh` needs: head boxes and joints in the
            annotations' order, relative to ``data_root``. Defaults to None.
        data_prefix: ``dict(img=FOLDER)``, the pictures' folder, relative to ``data_root``. A folder that is given must
            exist. Defaults to None: ``images/``, looked for when the first picture is fetched.
        **kwargs: As for MMEngine's ``BaseDataset``: data_root, metainfo, pipeline, test_mode, indices, ...

    Raises:
        InputError: for files that are missing or damaged and annotations that are wrong, naming the file and the first wrong index.
    """

    # Names, colours and skeleton as MMPose's visualiser draws them; by its whole path, or MMPose warns that it had to search.
    METAINFO: dict = dict(
        from_file=osp.join(osp.dirname(mmpose.__file__), '.mim/configs/_base_/datasets/mpii.py')
    )

    def __init__(
        self, ann_file: str, headbox_file: str | None = None, data_prefix: dict | None = None, **kwargs
    ):
        self.headbox_file = headbox_file
        self.images_must_exist = data_prefix is not None
        super().__init__(ann_file=ann_file, data_prefix=data_prefix or dict(img='images/'), **kwargs)

    def _join_prefix(self) -> None:
        super()._join_prefix()
        if self.headbox_file and self.data_root and not osp.isabs(self.headbox_file):
            self.headbox_file = osp.join(self.data_root, self.headbox_file)

    def load_data_list(self) -> list[dict]:
        """Reads and checks the files; see the class for what an item holds."""
        annotations = self._read_annotations()
        images = self.data_prefix['img']
        if self.images_must_exist and not osp.isdir(images):
            raise InputError(
                f"{self.ann_file}: the pictures' folder {images} does not exist (annotation 0 wants "
                f'{annotations[0]["image"]}); put the pictures there, or set data_root or data_prefix in the config.'
            )
        center, scale, joints, visible = self._stack(annotations)
        joints = joints - 1
        if not visible.any():
            self._metainfo['ann_file'] = self.ann_file
        if self.headbox_file:
            truth = self._read_ground_truth(len(annotations))
            joints, visible = truth['gt'], truth['visible']

        center = center + np.stack([np.zeros_like(scale), CENTER_SHIFT * scale], axis=1) - 1
        half = PIXELS_A_SCALE / 2 * scale[:, None]
        bbox = np.concatenate([center - half, center + half], axis=1).astype(np.float32)
        keypoints = joints.astype(np.float32)
        visible = visible.astype(np.float32)
        image_ids = {}
        data_list = []
        for index, annotation in enumerate(annotations):
            image = annotation['image']
            item = dict(
                id=index,
                img_id=image_ids.setdefault(image, len(image_ids)),
                img_path=osp.join(images, image),
                bbox=bbox[index : index + 1],
                bbox_score=np.ones(1, dtype=np.float32),
                keypoints=keypoints[index : index + 1],
                keypoints_visible=visible[index : index + 1],
            )
            if self.headbox_file:
                item['head_size'] = truth['head_size'][index].reshape(1, 1)
            data_list.append(item)
        return data_list

    def get_data_info(self, idx: int) -> dict:
        """Person ``idx``, and what transforms want to know of the data set: the same objects for all persons, to be read only."""
        # MMPose copies them deeply for every person
        return {
            **super(BaseCocoStyleDataset, self).get_data_info(idx),
            **{key: self._metainfo[key] for key in METAINFO_KEYS},
        }

    def prepare_data(self, idx: int) -> dict:
        """The pipeline's result for person ``idx``. Raises an :class:`InputError` where the picture is missing or damaged."""
        try:
            return super().prepare_data(idx)
        except (
            Exception
        ) as error:  # what a damaged picture makes of OpenCV and the pipeline depends on the damage
            image = self.get_data_info(idx)['img_path']
            if not osp.isfile(image):
                raise InputError(
                    f'{image} does not exist, but annotation {idx} of {self.ann_file} wants it; '
                    'put the pictures there, or set data_root or data_prefix in the config.'
                ) from error
            if _decodes(image):
                raise
            raise InputError(
                f'{image} is no picture or was cut off, but annotation {idx} of {self.ann_file} wants it; '
                'get it again.'
            ) from error

    def _read_annotations(self) -> list[dict]:
        if not osp.isfile(self.ann_file):
            raise InputError(
                f'The annotation file {self.ann_file} does not exist; README.md, "Data", says how to get MPII and '
                'where it goes, and data_root in the config names its folder.'
            )
        try:
            with open(self.ann_file) as file:
                annotations = json.load(file)
        except ValueError as error:
            raise InputError(
                f'{self.ann_file} is not a JSON file or was cut off ({error}); get it again.'
            ) from error
        if not isinstance(annotations, list) or not annotations:
            raise InputError(
                f'{self.ann_file} should hold a list of at least one annotation in MPII layout, but holds '
                f'{"an empty list" if annotations == [] else type(annotations).__name__}.'
            )
        return annotations

    def _stack(self, annotations: list[dict]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """centre (N, 2), scale (N,), joints (N, 16, 2) and joints_vis (N, 16), checked."""

        def wrong(index: int, what: str) -> InputError:
            return InputError(f'{self.ann_file}, annotation {index}: {what}; correct the file.')

        for index, annotation in enumerate(annotations):
            if not isinstance(annotation, dict):
                raise wrong(index, f'should be an object, but is {type(annotation).__name__}')
            missing = KEYS.keys() - annotation.keys()
            if missing:
                raise wrong(index, f'lacks {", ".join(sorted(missing))}')
            if not isinstance(annotation['image'], str):
                raise wrong(index, f'image should be a file name, but is {annotation["image"]!r}')

        stacked = []
        for key, shape in list(KEYS.items())[1:]:
            try:
                values = np.array([annotation[key] for annotation in annotations], dtype=np.float64)
            except (ValueError, TypeError, OverflowError):
                values = None
            if values is None or values.shape != (len(annotations), *shape):
                for index, annotation in enumerate(annotations):
                    try:
                        found = np.array(annotation[key], dtype=np.float64).shape
                    except (ValueError, TypeError, OverflowError):
                        found = 'ragged or not numeric'
                    if found != shape:
                        raise wrong(index, f'{key} should have shape {shape}, but is {found}')
            broken = np.flatnonzero(~np.isfinite(values.reshape(len(annotations), -1)).all(axis=1))
            if broken.size:
                raise wrong(broken[0], f'{key} holds NaN or infinity')
            stacked.append(values)

        center, scale, joints, visible = stacked
        if (scale <= 0).any():
            index = int(np.argmax(scale <= 0))
            raise wrong(index, f'scale should be positive, but is {scale[index]:g}')
        for key, pixels in dict(scale=PIXELS_A_SCALE * scale[:, None], center=np.abs(center)).items():
            far = (pixels > LONGEST_SIDE).any(axis=1)
            if far.any():
                index = int(np.argmax(far))
                raise wrong(
                    index,
                    f'{key} is {annotations[index][key]}, which is {pixels[index].max():g} pixels, but no picture has more '
                    f'than {LONGEST_SIDE:,}',
                )
        without = ~(visible > 0).any(axis=1)
        if without.all() and not self.test_mode:
            raise InputError(
                f'{self.ann_file}: nobody has an annotated joint (joints_vis is nowhere 1), as in a test set, from '
                'which nothing can be learned; set ann_file to annotations with joints, such as mpii_train.json.'
            )
        if without.any() and not without.all():
            raise wrong(int(np.argmax(without)), 'has no annotated joint (joints_vis is nowhere 1)')
        return center, scale, joints, visible

    def _read_ground_truth(self, num_persons: int) -> dict:
        """``gt`` (N, 16, 2), ``visible`` (N, 16) and ``head_size`` (N,) from the head-box file."""
        if not osp.isfile(self.headbox_file):
            raise InputError(
                f'The head-box file {self.headbox_file} does not exist; README.md, "Data", says how to get MPII and '
                'where it goes, and headbox_file in the config names it.'
            )
        truth = load_ground_truth(self.headbox_file)
        if len(truth['gt']) != num_persons:
            raise InputError(
                f'{self.headbox_file} holds {len(truth["gt"])} persons, but {self.ann_file} has {num_persons} '
                f'annotations, up to index {num_persons - 1}; the two files do not belong together.'
            )
        return truth


def _decodes(image: str) -> bool:
    try:
        return cv2.imread(image) is not None
    except cv2.error:
        return False
