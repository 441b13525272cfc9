"""The PCKh metric for MMEngine's runners."""

from collections.abc import Sequence

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.registry import METRICS

from hg_plugin.mpii_format import NUM_JOINTS, check_prediction_file, save_predictions
from hg_plugin.utils.errors import InputError

from .pckh import MEAN_WEIGHTS, pckh_curves, pckh_figures, pckh_table


def _to_numpy(array) -> np.ndarray:
    return array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


@METRICS.register_module()
class MPIIPCKh(BaseMetric):
    """PCKh on MPII: Head, Shoulder, Elbow, Wrist, Hip, Knee, Ankle, Mean, Mean@0.1 and AUC, in percent.

    :mod:`hg_plugin.evaluation.pckh` has the conventions. Predictions and truth are compared in one frame, the 0-based
    pixels of the picture. Persons are sorted by ``id`` and those that a distributed sampler padded are dropped, so any
    number of processes gives the same figures. The keys carry no prefix: ``save_best='Mean', rule='greater'`` names one
    (MMEngine does not know by itself that more is better).

    Args:
        weights: How 'Mean' averages the joints, 'annotations' or 'equal'; see :func:`pckh_curves`. Defaults to
            'annotations'.
        pred_file: Where to write the predictions, a ``.npz`` or ``.mat`` with ``preds``, (N, 16, 2), in 1-based pixels
            and in the order of the annotation file, for ``tools/eval_pckh.py``. Defaults to None, no file.
        collect_device, prefix, collect_dir: As in MMEngine's ``BaseMetric``.

    Raises:
        InputError: ``weights`` or the extension of ``pred_file`` is unknown; later, a sample is of a test set or has no
            head size, no ``id`` or not 16 joints, two persons share an ``id``, nothing was evaluated, or ``pred_file``
            cannot be written.
    """

    # An empty one, because BaseMetric warns about None.
    default_prefix = ''

    def __init__(
        self,
        weights: str = 'annotations',
        pred_file: str | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if weights not in MEAN_WEIGHTS:
            raise InputError(f'MPIIPCKh: weights is {weights!r}, but must be one of {list(MEAN_WEIGHTS)}.')
        if pred_file is not None:
            check_prediction_file(pred_file)
        self.weights = weights
        self.pred_file = pred_file

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keeps what PCKh needs of a batch.

        Args:
            data_batch: Not used.
            data_samples: Dictionaries with ``id``, the person's row in the annotation file; ``pred_instances`` with
                ``keypoints`` (1, 16, 2); and ``gt_instances`` with ``keypoints`` (1, 16, 2), ``keypoints_visible``
                (1, 16) and ``head_size`` (1, 1). Arrays or tensors, in 0-based pixels of the picture.
        """
        for sample in data_samples:
            person, truth = sample.get('id'), sample['gt_instances']
            if person is None:
                raise InputError(
                    "MPIIPCKh: a sample has no 'id'; "
                    "name it in the meta_keys of the pipeline's packing transform."
                )
            visible = _to_numpy(truth['keypoints_visible'])
            if visible.ndim == 3:  # MMPose appends the weights of the joints to it
                visible = visible[..., 0]
            if truth.get('head_size') is None and not (visible > 0).any():
                raise InputError(
                    f'MPIIPCKh: person {person} has no annotated joint, as in a test set, so that PCKh cannot be '
                    "known; for MPII's server, set test_evaluator to dict(type='MPIISubmission')."
                )
            if truth.get('head_size') is None:
                raise InputError(
                    f'MPIIPCKh: person {person} has no head size; '
                    "set the dataset's headbox_file to the set's mpii_gt_*.mat."
                )
            pred, gt = (_to_numpy(instances['keypoints']) for instances in (sample['pred_instances'], truth))
            for what, keypoints in (('predictions', pred), ('annotations', gt)):
                if keypoints.shape != (1, NUM_JOINTS, 2):
                    raise InputError(
                        f'MPIIPCKh: the {what} of person {person} have shape {keypoints.shape}, '
                        f'but MPII has {NUM_JOINTS} joints, (1, {NUM_JOINTS}, 2).'
                    )
            self.results.append(
                dict(
                    id=int(person),
                    pred=pred[0],
                    gt=gt[0],
                    visible=visible[0] > 0,
                    head_size=_to_numpy(truth['head_size']).item(),
                )
            )

    def compute_metrics(self, results: Sequence[dict]) -> dict[str, float]:
        """Prints the table, writes ``pred_file``, and returns the ten figures of :func:`pckh_figures`."""
        persons = {}
        for result in results:
            known = persons.setdefault(result['id'], result)
            if not np.array_equal(known['gt'], result['gt'], equal_nan=True):
                raise InputError(
                    f'MPIIPCKh: two different persons have the id {result["id"]}; '
                    'evaluate each dataset with a metric of its own.'
                )
        if not persons:
            raise InputError('MPIIPCKh: there is nothing to evaluate; the dataset is empty.')
        pred, gt, visible, head_size = (
            np.stack([persons[person][key] for person in sorted(persons)])
            for key in ('pred', 'gt', 'visible', 'head_size')
        )

        figures = pckh_figures(pckh_curves(pred, gt, visible, head_size, weights=self.weights))
        logger = MMLogger.get_current_instance()
        name = (self.dataset_meta or {}).get('dataset_name', 'predictions')
        logger.info('\n' + pckh_table({name: figures}, weights=self.weights))
        if self.pred_file is not None:
            save_predictions(self.pred_file, pred)
            logger.info(f'The predictions for {len(pred)} persons are in {self.pred_file}')
        return figures
