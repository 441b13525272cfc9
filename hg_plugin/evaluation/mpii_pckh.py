"""The PCKh metric for MMEngine's runners."""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.registry import METRICS

from hg_plugin.mpii_format import save_predictions
from hg_plugin.utils.array_files import check_extension
from hg_plugin.utils.errors import InputError

from .pckh import MEAN_WEIGHTS, joint_groups, pckh_curves, pckh_metrics, pckh_table


def to_numpy(array) -> np.ndarray:
    """Convert a tensor on any device, or anything that NumPy takes."""
    return array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


@METRICS.register_module()
class MPIIPCKh(BaseMetric):
    """PCKh on MPII: Head, Shoulder, Elbow, Wrist, Hip, Knee, Ankle, Mean, Mean@0.1 and AUC, in percent.

    See :mod:`hg_plugin.evaluation.pckh` for the conventions. Datasets of other keypoints have columns by
    their names, such as 'Knee' for ``left_knee`` and ``right_knee``; see :func:`joint_groups`. Predictions
    and truth are compared in 0-based pixels of the image; those of MMPose's ``MpiiDataset`` are 1-based.
    Persons are sorted by ``id`` and the padding of a distributed sampler is dropped, so the number of
    processes does not change the result. The keys have no prefix: ``save_best='Mean', rule='greater'``.

    Args:
        weights: How 'Mean' averages the joints, 'annotations' or 'equal'; see :func:`pckh_curves`. Defaults
            to 'annotations'.
        pred_file: A ``.npz`` or ``.mat`` to write the predictions to, in the order of the annotation file,
            for ``hg_plugin eval_pckh``; see :func:`hg_plugin.mpii_format.save_predictions`. Defaults to None,
            no file.
        groups: Names or indices of keypoints by column, instead of those of the dataset's names; 'Mean' is of
            all keypoints. Defaults to None.
        **kwargs: ``collect_device``, ``prefix`` and ``collect_dir``, as in MMEngine's ``BaseMetric``.

    Attributes:
        kpt_thr: After an evaluation, the score that nine of ten right keypoints reach, those within half a
            head size; None where none is right.
        persons: After an evaluation, what :meth:`process` has kept, as arrays of all persons by name.

    Raises:
        InputError: ``weights`` or the extension of ``pred_file`` is unknown. When the metric gets the
            dataset's names: ``groups`` has others. Later: a sample has no head size or other joints than
            the prediction, two persons share an ``id``, or ``pred_file`` cannot be written.
    """

    # An empty one, because BaseMetric warns about None.
    default_prefix = ''

    def __init__(
        self,
        weights: str = 'annotations',
        pred_file: str | None = None,
        groups: Mapping[str, Sequence[str | int]] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if weights not in MEAN_WEIGHTS:
            raise InputError(f'MPIIPCKh: weights is {weights!r}; use one of {list(MEAN_WEIGHTS)}.')
        if pred_file is not None:
            check_extension(pred_file)
        self.weights = weights
        self.pred_file = pred_file
        self.groups = groups
        self.kpt_thr: float | None = None
        self.persons: dict[str, np.ndarray] = {}

    @BaseMetric.dataset_meta.setter
    def dataset_meta(self, dataset_meta: Mapping | None) -> None:
        """Runners set it before the first batch."""
        self._dataset_meta = dataset_meta
        ids = (dataset_meta or {}).get('keypoint_name2id', {})
        for name in chain.from_iterable((self.groups or {}).values()):
            if name not in ids and name not in ids.values():
                names = ', '.join(ids)
                raise InputError(f'MPIIPCKh: {name!r} in groups is no keypoint of the dataset ({names}).')

    def process(self, data_batch, data_samples: Sequence[dict]) -> None:
        """Keep what PCKh needs of a batch.

        Args:
            data_batch: Not used.
            data_samples: Dictionaries with ``id``, the person's row in the annotation file;
                ``pred_instances`` with ``keypoints`` (1, K, 2) and perhaps ``stage_keypoints`` (1, S, K, 2);
                and ``gt_instances`` with ``keypoints`` (1, K, 2), ``keypoints_visible`` (1, K) or with
                weights (1, K, 2), and ``head_size`` (1, 1). Arrays or tensors, in pixels of the image. For a
                report also ``img_path``, ``input_center``, ``input_scale``, and ``bboxes`` of the truth.
        """
        for sample in data_samples:
            person, truth, found = sample['id'], sample['gt_instances'], sample['pred_instances']
            if truth.get('head_size') is None:
                raise InputError(
                    f"MPIIPCKh: person {person} has no head size; set the dataset's headbox_file to "
                    "mpii_gt_*.mat. A test set without annotated joints needs dict(type='MPIISubmission')."
                )
            visible = to_numpy(truth['keypoints_visible'])
            if visible.ndim == 3:  # MMPose appends the weights of the joints
                visible = visible[..., 0]
            pred, gt = to_numpy(found['keypoints']), to_numpy(truth['keypoints'])
            if not pred.shape == gt.shape == (1, *visible.shape[1:], 2):
                raise InputError(
                    f'MPIIPCKh: the predictions of person {person} have shape {pred.shape} and the '
                    f'annotations {gt.shape}; both must be (1, K, 2), of the same keypoints.'
                )
            result = dict(
                ids=int(person),
                pred=pred[0],
                scores=to_numpy(found.get('keypoint_scores', np.zeros(pred.shape[:2])))[0],
                keypoints=to_numpy(found.get('stage_keypoints', pred[:, None]))[0],
                truth=gt[0],
                annotated=visible[0] > 0,
                head_size=to_numpy(truth['head_size']).item(),
            )
            if 'input_center' in sample:
                result |= dict(images=sample['img_path'], boxes=truth['bboxes'][0])
                result |= dict(centers=sample['input_center'], scales=sample['input_scale'])
            self.results.append(result)

    def compute_metrics(self, results: Sequence[dict]) -> dict[str, float]:
        """Log the table, write ``pred_file``, and return the metrics of :func:`pckh_metrics`.

        With ``stage_keypoints`` of several stages, the mean of each is returned too: ``stage0/Mean``, ...
        """
        persons = {}
        for result in results:
            known = persons.setdefault(result['ids'], result)
            if not np.array_equal(known['truth'], result['truth'], equal_nan=True):
                raise InputError(
                    f'MPIIPCKh: two different persons have the id {result["ids"]}; '
                    'evaluate each dataset with a metric of its own.'
                )
        self.persons = {
            key: np.stack([persons[person][key] for person in sorted(persons)]) for key in results[0]
        }
        pred, gt, visible, head_size, scores, stages = (
            self.persons[key] for key in ('pred', 'truth', 'annotated', 'head_size', 'scores', 'keypoints')
        )
        right = visible & (np.linalg.norm(pred - gt, axis=-1) <= head_size[:, None] / 2)
        self.kpt_thr = float(np.quantile(scores[right], 0.1)) if right.any() else None

        meta = self.dataset_meta or {}
        groups = joint_groups(meta)
        if self.groups:
            ids = meta.get('keypoint_name2id', {})
            groups = {name: [ids.get(each, each) for each in group] for name, group in self.groups.items()}

        def score(keypoints):
            curves = pckh_curves(keypoints, gt, visible, head_size, weights=self.weights, groups=groups)
            return pckh_metrics(curves)

        metrics = score(pred)
        logger = MMLogger.get_current_instance()
        name = meta.get('dataset_name', 'predictions')
        logger.info('\n' + pckh_table({name: metrics}, weights=self.weights))
        if self.pred_file is not None:
            save_predictions(self.pred_file, pred)
            logger.info(f'The predictions for {len(pred)} persons are in {self.pred_file}')
        if stages.shape[1] > 1:
            means = {f'stage{i}/Mean': score(stages[:, i])['Mean'] for i in range(stages.shape[1])}
            metrics = {**metrics, **means}
        return metrics
