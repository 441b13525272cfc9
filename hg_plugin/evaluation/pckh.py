"""PCKh, the percentage of joints that are predicted within a fraction of the head size, in NumPy.

Tables of PCKh differ by convention. The columns here are those of Newell et al., "Stacked Hourglass Networks
for Human Pose Estimation" (ECCV 2016), table 2, computed on MPII's validation set as in HRNet and MMPose:

- The head size is 0.6 of the head box's diagonal, and a distance equal to the threshold counts as correct.
- 'Head' is the head top alone. Every other column is the plain mean of the left and the right joint.
- Pelvis and thorax are in no column, and the upper neck is in 'Mean' only.

Other keypoints than MPII's have columns by their names, and all of them are in 'Mean'.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from hg_plugin.mpii_format import JOINT_GROUPS, NUM_JOINTS, SCORED_JOINTS

METRIC_NAMES = (*JOINT_GROUPS, 'Mean', 'Mean@0.1', 'AUC')
# the partners of MPII's joints in a flipped image
MPII_FLIP = [5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10]
MEAN_WEIGHTS = dict(annotations='Mean weighted by annotations', equal='Mean of the joints with equal weights')
# Added-up steps of 0.01 would miss 0.1 and 0.5 by a rounding error, which matters to `<=`.
THRESHOLDS = np.arange(51) / 100


def pckh(
    pred: np.ndarray,
    gt: np.ndarray,
    visible: np.ndarray,
    head_size: np.ndarray,
    thresholds: Sequence[float] = THRESHOLDS,
) -> np.ndarray:
    """Compute the PCKh of every joint at every threshold, in percent.

    A joint is correct if its distance to the truth is at most ``threshold * head_size``.

    Args:
        pred: Predicted keypoints, (N, K, 2), in pixels. NaN counts as a wrong prediction.
        gt: True keypoints, (N, K, 2), in the same pixel frame. Ignored where ``visible`` is not positive.
        visible: (N, K); positive where the joint is annotated.
        head_size: (N,), in pixels.
        thresholds: T fractions of the head size. Defaults to 0, 0.01 .. 0.5.

    Returns:
        (T, K) float64 between 0 and 100; NaN for a joint without annotations.

    Raises:
        ValueError: The shapes do not match.
    """
    pred, gt, head_size, thresholds = (
        np.asarray(array, np.float64) for array in (pred, gt, head_size, thresholds)
    )
    annotated = np.asarray(visible) > 0
    people = head_size.shape  # (N,)
    if not (pred.shape == gt.shape == (*annotated.shape, 2) and annotated.shape[:1] == people):
        raise ValueError(
            f'PCKh needs pred and gt (N, K, 2), visible (N, K) and head_size (N,), not {pred.shape}, '
            f'{gt.shape}, {annotated.shape} and {people}.'
        )
    distance = np.linalg.norm(np.where(annotated[..., None], pred - gt, 0), axis=-1)
    correct = distance <= thresholds.reshape(-1, 1, 1) * head_size[:, None]
    with np.errstate(invalid='ignore'):  # 0 / 0 is the NaN of a joint without annotations
        return 100 * (correct & annotated).sum(axis=1) / annotated.sum(axis=0)


def joint_groups(dataset_meta: Mapping | None) -> dict[str, list[int]] | None:
    """Group keypoints for the columns of PCKh: 'left_knee' and 'right_knee' are 'Knee'.

    Args:
        dataset_meta: MMPose's metainfo, with ``keypoint_id2name`` and ``flip_indices``.

    Returns:
        Keypoints by the name of their group, or None for MPII's joints, and where nothing is known.
    """
    partners = list((dataset_meta or {}).get('flip_indices', MPII_FLIP))
    if partners == MPII_FLIP:
        return None
    groups: dict[str, list[int]] = {}
    for index, name in sorted(dataset_meta['keypoint_id2name'].items()):
        if partners[index] != index:
            name = re.sub(r'(^|[_ -])(left|right|l|r)(?=$|[_ -])', '', name, flags=re.IGNORECASE)
        groups.setdefault(name.strip('_ -').replace('_', ' ').capitalize(), []).append(index)
    return groups


def pckh_curves(
    pred: np.ndarray,
    gt: np.ndarray,
    visible: np.ndarray,
    head_size: np.ndarray,
    *,
    weights: str = 'annotations',
    groups: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, np.ndarray]:
    """Compute PCKh over the threshold for groups of keypoints and their mean.

    Args:
        pred, gt, visible, head_size: As in :func:`pckh`.
        weights: How 'Mean' averages the keypoints. 'annotations' weights each by its number of annotations
            (HRNet, MMPose); 'equal' weights all with annotations equally. Defaults to 'annotations'.
        groups: Keypoints by the name of their group; 'Mean' is of all keypoints. Defaults to None: the seven
            groups of MPII, whose mean is of the 14 joints that are scored.

    Returns:
        An array for each group and for 'Mean', (51,), in percent at :data:`THRESHOLDS`; by default 'Head',
        'Shoulder', 'Elbow', 'Wrist', 'Hip', 'Knee', 'Ankle' and 'Mean'. Keypoints without annotations are
        left out of the averages; an empty average is NaN.

    Raises:
        ValueError: The shapes do not match, or there are not 16 joints and no ``groups``.
        KeyError: ``weights`` is neither of the two.
    """
    values = pckh(pred, gt, visible, head_size, THRESHOLDS)
    counts = (np.asarray(visible) > 0).sum(axis=0)
    scored = SCORED_JOINTS if groups is None else [*range(len(counts))]
    if groups is None and len(counts) != NUM_JOINTS:
        raise ValueError(f'The columns of PCKh need the {NUM_JOINTS} joints of MPII, not {len(counts)}.')
    equal = (counts > 0).astype(int)

    def average(joints, weight):
        with np.errstate(invalid='ignore'):
            return np.nansum(values[:, joints] * weight[joints], axis=1) / weight[joints].sum()

    groups = JOINT_GROUPS if groups is None else groups
    curves = {column: average(list(joints), equal) for column, joints in groups.items()}
    curves['Mean'] = average(scored, dict(annotations=counts, equal=equal)[weights])
    return curves


def pckh_metrics(curves: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Reduce the curves of :func:`pckh_curves` to the metrics of a table row, in MPII :data:`METRIC_NAMES`.

    Returns:
        Percent as Python floats: the curves at threshold 0.5, then 'Mean@0.1', and 'AUC', the average of
        'Mean' over the 51 thresholds.
    """
    metrics = {column: float(curve[-1]) for column, curve in curves.items()}
    metrics['Mean@0.1'] = float(curves['Mean'][10])
    metrics['AUC'] = float(curves['Mean'].mean())
    return metrics


def pckh_table(rows: Mapping[str, Mapping[str, float]], *, weights: str) -> str:
    """Format metrics as a text table with one line per row, two decimals, and '-' for NaN.

    Args:
        rows: Maps a name to its :func:`pckh_metrics`; at least one.
        weights: How 'Mean' was averaged, for the heading.
    """
    columns = list(next(iter(rows.values())))
    width = max(map(len, rows))
    widths = {column: max(10, len(column) + 2) for column in columns}
    lines = [f'PCKh@0.5 in percent, {MEAN_WEIGHTS[weights]}', ' ' * width]
    lines[1] += ''.join(f'{column:>{widths[column]}}' for column in columns)
    for name, metrics in rows.items():
        cells = {column: '-' if np.isnan(metrics[column]) else f'{metrics[column]:.2f}' for column in columns}
        lines.append(f'{name:<{width}}' + ''.join(f'{cells[column]:>{widths[column]}}' for column in columns))
    return '\n'.join(lines)
