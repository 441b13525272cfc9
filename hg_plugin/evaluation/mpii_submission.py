"""The file that MPII's evaluation server takes, for the test set whose joints only the server knows."""

import json
import os.path as osp
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.registry import METRICS
from scipy.io import loadmat, savemat

from hg_plugin.mpii_format import NUM_JOINTS, TEST_ANNOLIST
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write


@METRICS.register_module()
class MPIISubmission(BaseMetric):
    """Writes predictions on MPII's test set as the evaluation server takes them, and computes no figure.

    The file holds ``pred``, which is ``RELEASE.annolist(RELEASE.img_train == 0)`` with all its rectangles, and for each
    person of ``mpii_test.json`` ``annorect(ridx).annopoints.point(k)`` with ``x``, ``y`` in 1-based pixels and the
    0-based ``id`` of 16 joints: "Evaluation on MPII Human Pose Dataset", section "Single Person Pose Estimation,
    Preparing predictions", at human-pose.mpi-inf.mpg.de. ``evaluatePCKh.m`` of its toolkit asserts the number of
    pictures, walks through the rectangles by ``objpos`` and finds points by ``id``, so none of the three may be left
    out. ``src/misc/predictMPII.m`` of Newell's pose-hg-train fills in the same fields.

    Args:
        out_file: The file to write, a ``.mat``. Defaults to 'pred_keypoints_mpii.mat'.
        ann_file: ``mpii_test.json`` as ``tools/prepare_mpii.py`` makes it, with ``mpii_test_annolist.mat`` beside it.
            Defaults to None, that of the data set that is tested.
        collect_device, prefix, collect_dir: As in MMEngine's ``BaseMetric``.

    Raises:
        InputError: ``out_file`` is no ``.mat``; later, the annotation files are missing, damaged, not those of the test
            set or do not belong together, a person is missing or has no finite prediction of 16 joints, or
            ``out_file`` cannot be written.
    """

    # An empty one, because BaseMetric warns about None.
    default_prefix = ''

    def __init__(
        self,
        out_file: str = 'pred_keypoints_mpii.mat',
        ann_file: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if Path(out_file).suffix != '.mat':
            raise InputError(f"MPII's server takes a .mat, so rename the submission file {out_file}.")
        self.out_file = out_file
        self.ann_file = ann_file

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keeps the predictions of a batch.

        Args:
            data_batch: Not used.
            data_samples: Dictionaries with ``id``, the person's row in the annotation file, ``img_path``, and
                ``pred_instances`` with ``keypoints`` (1, 16, 2) in 0-based pixels of the picture.
        """
        if not self.results:  # before hours of testing, not after
            self._find_files()
        for sample in data_samples:
            keypoints = sample['pred_instances']['keypoints']
            if isinstance(keypoints, torch.Tensor):
                keypoints = keypoints.detach().cpu().numpy()
            person, path = sample.get('id'), sample.get('img_path')
            if person is None or path is None:
                raise InputError(
                    "MPIISubmission: a sample has no 'id' or no 'img_path'; "
                    "name both in the meta_keys of the pipeline's packing transform."
                )
            if keypoints.shape != (1, NUM_JOINTS, 2) or not np.isfinite(keypoints).all():
                raise InputError(
                    f'MPIISubmission: the prediction for person {person} should be {NUM_JOINTS} joints, '
                    f'(1, {NUM_JOINTS}, 2), all finite, but has shape {keypoints.shape} or NaN.'
                )
            self.results.append(dict(id=int(person), image=osp.basename(path), pred=keypoints[0]))

    def compute_metrics(self, results: Sequence[dict]) -> dict:
        """Writes ``out_file`` and returns no figure: an empty dictionary."""
        ann_file, annolist_file = self._find_files()
        persons = _read_persons(ann_file)
        predictions = {result['id']: result for result in results}  # a distributed sampler repeats some
        if predictions.keys() != set(range(len(persons))):
            raise InputError(
                f'MPIISubmission: there are predictions for {len(predictions):,} persons, but {ann_file} '
                f"has {len(persons):,}; MPII's server counts all of them, so test exactly these."
            )
        annolist = _read_annolist(annolist_file)
        rows = {str(picture['image'][0, 0]['name'][0]): row for row, picture in enumerate(annolist[0])}
        for index, person in enumerate(persons):
            image, rectangle, prediction = person['image'], person['person_index'], predictions[index]
            if prediction['image'] != image:
                raise InputError(
                    f'MPIISubmission: person {index} was found in {prediction["image"]}, but {ann_file} '
                    f'has it in {image}; set ann_file to the annotations of the tested data set.'
                )
            rects = annolist['annorect'][0, rows[image]] if image in rows else np.empty((0, 0))
            if not (rects.dtype.names and 0 <= rectangle < rects.size):
                raise InputError(
                    f'{annolist_file} has no rectangle {rectangle} in {image}, which annotation {index} '
                    f'of {ann_file} wants; make both again with tools/prepare_mpii.py.'
                )
            annolist['annorect'][0, rows[image]] = rects = _with_annopoints(rects)
            points = np.empty((1, NUM_JOINTS), [('x', object), ('y', object), ('id', object)])
            for joint, (x, y) in enumerate(prediction['pred'].astype(np.float64) + 1):
                points[0, joint] = x, y, float(joint)
            rects['annopoints'][0, rectangle] = dict(point=points)

        logger = MMLogger.get_current_instance()
        logger.info(f'Writing the predictions for {len(persons):,} persons to {self.out_file} ...')
        with atomic_write(self.out_file) as file:
            savemat(file, dict(pred=annolist), do_compression=True)
        logger.info(
            f"{self.out_file} is ready for MPII's evaluation server, which alone knows the test set's PCKh."
        )
        return {}

    def _find_files(self) -> tuple[str, str]:
        """Where mpii_test.json and mpii_test_annolist.mat are."""
        ann_file = self.ann_file or (self.dataset_meta or {}).get('ann_file')
        if ann_file is None:
            raise InputError(
                'MPIISubmission: the tested data set is not a test set, as its joints are annotated; set '
                "its ann_file to 'annotations/mpii_test.json'."
            )
        annolist_file = osp.join(osp.dirname(ann_file), TEST_ANNOLIST)
        for file in (ann_file, annolist_file):
            if not osp.isfile(file):
                raise InputError(f'there is no file {file}; make it with tools/prepare_mpii.py.')
        return ann_file, annolist_file


def _read_persons(ann_file: str) -> list[dict]:
    """The annotations in mpii_test.json."""
    try:
        with open(ann_file) as file:
            persons = json.load(file)
        for index, person in enumerate(persons):
            if not (isinstance(person['image'], str) and isinstance(person['person_index'], int)):
                raise TypeError(f'annotation {index}: image should be a name and person_index a whole number')
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'{ann_file} is not mpii_test.json ({type(error).__name__}: {error}); '
            'make it with tools/prepare_mpii.py.'
        ) from error
    return persons


def _read_annolist(path: str) -> np.ndarray:
    """The struct array (1, M) of the test pictures."""
    try:
        # mat_dtype, because whole numbers that MATLAB packed into small integers must go back as the doubles they are
        annolist = loadmat(path, mat_dtype=True, variable_names=['annolist'])['annolist']
        for picture in annolist[0]:
            picture['image'][0, 0]['name'][0], picture['annorect']
    except Exception as error:  # SciPy raises anything on a broken file: zlib's, a TypeError, a KeyError ...
        raise InputError(
            f'{path} cannot be read ({type(error).__name__}: {error}); '
            'make it again with tools/prepare_mpii.py.'
        ) from error
    return annolist


def _with_annopoints(rects: np.ndarray) -> np.ndarray:
    """The struct array, (1, R), with a field ``annopoints``, which the test pictures lack; empty for all persons."""
    rects = rects.reshape(1, -1)
    if 'annopoints' in rects.dtype.names:
        return rects
    extended = np.empty(rects.shape, [(name, object) for name in (*rects.dtype.names, 'annopoints')])
    for name in rects.dtype.names:
        extended[name] = rects[name]
    for index in range(rects.size):
        extended['annopoints'][0, index] = np.empty((0, 0))
    return extended
