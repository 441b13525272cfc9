"""The file for MPII's evaluation server, which alone knows the joints of the test set."""

import os.path as osp
from collections.abc import Sequence
from functools import cached_property

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.registry import METRICS
from scipy.io import loadmat

from hg_plugin.mpii_format import NUM_JOINTS, TEST_ANNOLIST, load_annotations, to_one_based
from hg_plugin.utils.array_files import check_extension, read_file, save_arrays
from hg_plugin.utils.errors import InputError

from .mpii_pckh import to_numpy


@METRICS.register_module()
class MPIISubmission(BaseMetric):
    """Write predictions on MPII's test set in the format of the evaluation server. It computes no metric.

    The file holds ``pred``: ``RELEASE.annolist(RELEASE.img_train == 0)`` with all its rectangles, plus, for
    every person of ``mpii_test.json``, ``annorect(ridx).annopoints.point(k)`` with ``x``, ``y`` in 1-based
    pixels and the 0-based ``id`` of 16 joints. See "Evaluation on MPII Human Pose Dataset", section "Single
    Person Pose Estimation, Preparing predictions", at human-pose.mpi-inf.mpg.de. The server's
    ``evaluatePCKh.m`` asserts the number of images, iterates over the rectangles by ``objpos`` and finds
    points by ``id``, so none of these may be missing. ``src/misc/predictMPII.m`` of Newell's pose-hg-train
    fills the same fields.

    Args:
        out_file: The ``.mat`` file to write. Defaults to 'pred_keypoints_mpii.mat'.
        ann_file: ``mpii_test.json`` from ``hg_plugin prepare mpii``, with ``mpii_test_annolist.mat`` beside
            it. Defaults to None, that of the tested dataset.
        **kwargs: ``collect_device``, ``prefix`` and ``collect_dir``, as in MMEngine's ``BaseMetric``.

    Raises:
        InputError: ``out_file`` is not a ``.mat``. Later: the annotation files are missing, damaged, not
            those of the test set or do not match, a prediction is missing or not 16 finite joints, or
            ``out_file`` cannot be written.
    """

    # An empty one, because BaseMetric warns about None.
    default_prefix = ''

    def __init__(
        self, out_file: str = 'pred_keypoints_mpii.mat', ann_file: str | None = None, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        check_extension(out_file, ['.mat'])
        self.out_file = out_file
        self.ann_file = ann_file

    @cached_property
    def test_set(self) -> tuple[str, dict, np.ndarray]:
        """The annotation file, its columns, and the (1, M) struct array ``annolist`` of all test images."""
        ann_file = self.ann_file or (self.dataset_meta or {}).get('ann_file')
        if ann_file is None:
            raise InputError(
                'MPIISubmission: the tested dataset is not a test set, because its joints are annotated; set '
                "its ann_file to 'annotations/mpii_test.json'."
            )
        path = osp.join(osp.dirname(ann_file), TEST_ANNOLIST)
        annolist = read_file(path, _read_annolist, 'make it again with hg_plugin prepare mpii')
        return ann_file, load_annotations(ann_file), annolist

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep the predictions of a batch.

        Args:
            data_batch: Not used.
            data_samples: Dictionaries with ``id``, the person's row in the annotation file, ``img_path``, and
                ``pred_instances`` with ``keypoints`` (1, 16, 2) in 0-based pixels of the image.
        """
        self.test_set  # noqa: B018, so that a wrong file is found before hours of testing
        for sample in data_samples:
            keypoints = to_numpy(sample['pred_instances']['keypoints'])
            if keypoints.shape != (1, NUM_JOINTS, 2) or not np.isfinite(keypoints).all():
                raise InputError(
                    f'MPIISubmission: the prediction for person {sample["id"]} should be {NUM_JOINTS} '
                    f'joints, (1, {NUM_JOINTS}, 2), all finite, but has shape {keypoints.shape} or NaN.'
                )
            image = osp.basename(sample['img_path'])
            self.results.append(dict(id=int(sample['id']), image=image, pred=keypoints[0]))

    def compute_metrics(self, results: Sequence[dict]) -> dict:
        """Write ``out_file`` and return no metric."""
        ann_file, persons, annolist = self.test_set
        predictions = {result['id']: result for result in results}  # a distributed sampler repeats some
        found = {person: result['image'] for person, result in predictions.items()}
        if found != dict(enumerate(persons['image'])):
            raise InputError(
                f'MPIISubmission: the predictions for {len(found):,} persons do not match the '
                f'{len(persons["image"]):,} persons of {ann_file}; test exactly that dataset.'
            )
        images = {str(image['image'][0, 0]['name'][0]): image for image in annolist[0]}
        rows = persons.get('person_index') or [None] * len(found)
        for index, (name, row) in enumerate(zip(persons['image'], rows)):
            rects = images[name]['annorect'] if name in images else np.empty(0)
            if not rects.dtype.names or row not in range(rects.size):
                raise InputError(
                    f'{TEST_ANNOLIST} has no rectangle {row} in {name}, which annotation {index} of '
                    f'{ann_file} needs; make both again with hg_plugin prepare mpii.'
                )
            points = np.empty((1, NUM_JOINTS), [('x', object), ('y', object), ('id', object)])
            for joint, (x, y) in enumerate(to_one_based(predictions[index]['pred'])):
                points[0, joint] = x, y, float(joint)
            images[name]['annorect'] = rects = _with_annopoints(rects)
            rects['annopoints'][0, row] = dict(point=points)

        logger = MMLogger.get_current_instance()
        logger.info(f'Writing the predictions for {len(found):,} persons to {self.out_file} ...')
        save_arrays(self.out_file, pred=annolist)
        logger.info(
            f"{self.out_file} is ready for MPII's evaluation server, which alone knows the test set's PCKh."
        )
        return {}


def _read_annolist(path: str) -> np.ndarray:
    # mat_dtype, because MATLAB packs whole numbers into small integers, which would be written back as such
    annolist = loadmat(path, mat_dtype=True, variable_names=['annolist'])['annolist']
    for image in annolist[0]:
        image['image'][0, 0]['name'][0], image['annorect']  # noqa: B018, so that a wrong file is refused here
    return annolist


def _with_annopoints(rects: np.ndarray) -> np.ndarray:
    """Return a struct array as (1, R), with an empty field ``annopoints`` if it has none."""
    rects = rects.reshape(1, -1)
    if 'annopoints' in rects.dtype.names:
        return rects
    extended = np.empty(rects.shape, [(name, object) for name in (*rects.dtype.names, 'annopoints')])
    for index, rect in enumerate(rects[0]):
        extended[0, index] = (*rect, np.empty((0, 0)))
    return extended
