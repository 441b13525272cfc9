"""MPII Human Pose, and any dataset in its layout, without the pixel shift of MMPose 1.x."""

import logging
import os.path as osp

import mmpose
import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.registry import DATASETS
from mmpose.datasets.datasets.base import BaseCocoStyleDataset

from hg_plugin.mpii_format import CENTER_SHIFT, PIXELS_A_SCALE, load_annotations, load_ground_truth
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.images import ImageError, read_image

from .detected_boxes import detected_boxes

# persons with unreadable images that end no training, however few persons there are
ALWAYS_ALLOWED = 3
# of a person's size: joints that differ by more in the two files are of two persons
SAME_PERSON = 0.1
# what transforms read of the dataset
METAINFO_KEYS = (
    'dataset_name',
    'upper_body_ids',
    'lower_body_ids',
    'flip_pairs',
    'dataset_keypoint_weights',
    'flip_indices',
    'skeleton_links',
)


@DATASETS.register_module()
class MPIIPoseDataset(BaseCocoStyleDataset):
    """Persons in the MPII layout, one item a person, in the order of the annotation file.

    An annotation file is a list of ``{image, center [x, y], scale, joints Kx2, joints_vis K}`` in MPII's
    1-based pixels. The K joints are those of ``metainfo``, by default MPII's 16. They are made 0-based here:
    ``keypoints`` (1, K, 2) and ``bbox`` (1, 4), a square of
    ``200 * scale`` pixels around the lowered center. ``GetBBoxCenterScale`` widens it by 1.25 to the paper's
    crop. With ``headbox_file`` an item also has ``head_size`` (1, 1), and its joints come from that file, as
    in published results: see :func:`hg_plugin.mpii_format.load_ground_truth`.

    MMPose's own ``MpiiDataset`` makes the center 0-based, but leaves the joints 1-based.

    If no person has an annotated joint, as in MPII's test set, the dataset can only be used with
    ``test_mode``. Its ``metainfo`` then holds ``ann_file`` for :class:`hg_plugin.evaluation.MPIISubmission`.

    Args:
        ann_file: The annotations, relative to ``data_root``.
        headbox_file: ``mpii_gt_val.mat``, relative to ``data_root``: head boxes and joints in the order of
            the annotations, for :class:`hg_plugin.evaluation.MPIIPCKh`. Defaults to None.
        data_prefix: ``dict(img=FOLDER)``, the folder of the images, relative to ``data_root``. It must exist.
            Defaults to None: ``images/``, which is looked for when the first image is read.
        bbox_file: Detections of persons in COCO's format, instead of the annotated boxes, in a test; see
            :func:`hg_plugin.datasets.detected_boxes.detected_boxes`. As in MMPose, the path is not relative
            to ``data_root``. Defaults to None.
        max_unreadable: Share of persons whose images may be unreadable in training, or three persons if that
            is more. Each is reported once, and the next person takes its place. With more of them, training
            stops. Defaults to 0.01.
        data_mode: 'topdown', as MMPose's datasets name it. Defaults to 'topdown'.
        sample_interval: 1. Defaults to 1.
        **kwargs: As for MMEngine's ``BaseDataset``: data_root, metainfo, pipeline, test_mode, indices, ...

    Attributes:
        unreadable (Tensor): (N,) uint8, 1 for persons whose images were found to be unreadable in training,
            in memory that the workers of a data loader share.

    Raises:
        InputError: If a file is missing or damaged, or an annotation is wrong.
    """

    # keypoint names, colors and skeleton for MMPose's visualizer; MMPose warns about a relative path
    METAINFO: dict = dict(
        from_file=osp.join(osp.dirname(mmpose.__file__), '.mim/configs/_base_/datasets/mpii.py')
    )

    def __init__(
        self,
        ann_file: str,
        headbox_file: str | None = None,
        data_prefix: dict | None = None,
        max_unreadable: float = 0.01,
        data_mode: str = 'topdown',
        sample_interval: int = 1,
        **kwargs,
    ):
        if (data_mode, sample_interval) != ('topdown', 1):
            raise InputError(
                f'MPIIPoseDataset: data_mode={data_mode!r} and sample_interval={sample_interval} are not '
                "supported, only 'topdown' and 1; set indices to use a part of the persons."
            )
        self.headbox_file = headbox_file
        self.max_unreadable = max_unreadable
        self.images_must_exist = data_prefix is not None
        super().__init__(ann_file=ann_file, data_prefix=data_prefix or dict(img='images/'), **kwargs)

    def _join_prefix(self) -> None:
        super()._join_prefix()
        if self.headbox_file and self.data_root:
            self.headbox_file = osp.join(self.data_root, self.headbox_file)

    def load_data_list(self) -> list[dict]:
        """Read and check the files. See the class for the items."""
        annotations = load_annotations(self.ann_file, self._metainfo['num_keypoints'])
        center, scale, joints, visible = (
            annotations[key] for key in ('center', 'scale', 'joints', 'visible')
        )
        if visible.any():  # checkpoints keep it, and drawings leave these keypoints out
            names = self._metainfo['keypoint_id2name']
            unannotated = np.flatnonzero(~visible.any(axis=0)).tolist()
            self._metainfo['unannotated_keypoints'] = [names[index] for index in unannotated]
        elif self.test_mode:
            self._metainfo['ann_file'] = self.ann_file
        else:
            raise InputError(
                f'No person of {self.ann_file} has an annotated joint (joints_vis is nowhere 1), as in a '
                'test set; set ann_file to annotations with joints, such as mpii_train.json.'
            )
        images = self.data_prefix['img']
        if self.images_must_exist and not osp.isdir(images):
            raise InputError(
                f'The image folder {images} of {self.ann_file} does not exist; put the images there, '
                'or set data_root or data_prefix in the config.'
            )
        if self.headbox_file:
            truth = load_ground_truth(self.headbox_file)
            joints, visible = truth['gt'], truth['visible']
            if joints.shape != annotations['joints'].shape:
                (n, k, _), (persons, keypoints, _) = joints.shape, annotations['joints'].shape
                raise InputError(
                    f'{self.headbox_file} holds {n} persons of {k} joints, but {self.ann_file} has {persons} '
                    f'of {keypoints}; use two files that belong together.'
                )
            both = visible & annotations['visible']
            distance = np.linalg.norm(joints - annotations['joints'], axis=2)
            far = both & (distance > SAME_PERSON * PIXELS_A_SCALE * scale[:, None])
            # of a person's joints more than half: some may be corrected, or missing in one of the files
            other = 2 * far.sum(axis=1) > both.sum(axis=1)
            if other.any():
                raise InputError(
                    f'{self.headbox_file} and {self.ann_file} hold other joints for {other.sum()} of '
                    f'{len(other)} persons, such as annotation {other.argmax()}; list the same persons in '
                    'the same order in both.'
                )

        center = center + np.stack([np.zeros_like(scale), CENTER_SHIFT * scale], axis=1)
        half = PIXELS_A_SCALE / 2 * scale[:, None]
        bbox = np.concatenate([center - half, center + half], axis=1).astype(np.float32)
        bbox_score = np.ones(len(bbox), np.float32)
        if self.bbox_file:
            bbox, bbox_score = detected_boxes(self.bbox_file, annotations['image'], bbox)
        # (N, 1, ...); the truth of a test stays exact, as in an evaluation without a runner
        columns = dict(
            bbox=bbox[:, None],
            bbox_score=bbox_score[:, None],
            keypoints=(joints if self.headbox_file else joints.astype(np.float32))[:, None],
            keypoints_visible=visible.astype(np.float32)[:, None],
        )
        if self.headbox_file:
            columns['head_size'] = truth['head_size'][:, None, None]
        image_ids: dict[str, int] = {}
        return [
            dict(
                id=index,
                img_id=image_ids.setdefault(image, len(image_ids)),
                img_path=osp.join(images, image),
                **{key: values[index] for key, values in columns.items()},
            )
            for index, image in enumerate(annotations['image'])
        ]

    def get_data_info(self, idx: int) -> dict:
        """Person ``idx``, with the metainfo that transforms read; not a deep copy, unlike in MMPose."""
        return {
            **super(BaseCocoStyleDataset, self).get_data_info(idx),
            **{key: self._metainfo[key] for key in METAINFO_KEYS},
            # KeypointConverter writes into it
            'flip_indices': [*self._metainfo['flip_indices']],
        }

    # whether a DivergenceHook calls check_unreadable, where it can save the training before
    hook_checks = False

    def full_init(self) -> None:
        super().full_init()
        # one flag a person, in memory that loader workers share
        self.unreadable = torch.zeros(len(self), dtype=torch.uint8).share_memory_()

    def prepare_data(self, idx: int) -> dict:
        """The pipeline's result for person ``idx``, or in training, if its image is unreadable, for the next.

        Raises:
            InputError: If the image is unreadable, in testing; or too many are, in training.
        """
        if self.test_mode:
            return self._prepare(idx)
        for step in range(len(self)):
            other = (idx + step) % len(self)
            if not self.unreadable[other]:
                try:
                    return self._prepare(other)
                except ImageError as error:
                    self.unreadable[other] = 1
                    if not self.hook_checks:
                        self.check_unreadable()
                    print_log(f'{error} Trained on the next person instead.', 'current', logging.ERROR)
        raise InputError(f'No image of {self.ann_file} can be read.')

    def check_unreadable(self) -> None:
        """Raise an :class:`InputError` if more persons than ``max_unreadable`` allows are known to be so."""
        count = int(self.unreadable.sum())
        if count > max(ALWAYS_ALLOWED, self.max_unreadable * len(self)):
            index = int(self.unreadable.argmax())
            raise InputError(
                f'{count} of the {len(self)} persons of {self.ann_file} have unreadable images, more than '
                f'max_unreadable={self.max_unreadable:g} of them, such as annotation {index}, '
                f'{self.get_data_info(index)["img_path"]}; list all with: hg_plugin check CONFIG'
            )

    def _prepare(self, idx: int) -> dict:
        """The pipeline's result, or an :class:`ImageError` that names the annotation."""
        try:
            return super().prepare_data(idx)
        except Exception as error:  # transforms raise anything on a damaged image
            person = self.get_data_info(idx)
            try:
                if isinstance(error, ImageError):
                    raise
                read_image(person['img_path'])
            except ImageError as image_error:
                raise ImageError(f'{self.ann_file}, annotation {person["id"]}: {image_error}') from error
            raise
