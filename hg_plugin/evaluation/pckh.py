"""PCKh: the percentage of joints that are predicted within a fraction of the head size. Pure NumPy.

Tables of PCKh differ by convention. The columns are those of Newell et al., "Stacked Hourglass Networks for Human Pose
Estimation" (ECCV 2016), table 2, computed on MPII's validation set as HRNet and MMPose do: the head size is 0.6 of the
head box's diagonal; a distance equal to the threshold counts as right; 'Head' is the head top alone; every other column
is the plain mean of its left and right joint; pelvis and thorax are in no column; and the upper neck is in 'Mean' only.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from hg_plugin.mpii_format import COLUMNS, NUM_JOINTS, SCORED_JOINTS
from hg_plugin.utils.errors import InputError

FIGURES = (*COLUMNS, 'Mean', 'Mean@0.1', 'AUC')
MEAN_WEIGHTS = dict(annotations='Mean weighted by annotations', equal='Mean of the joints with equal weights')
# A division, because steps of 0.01 that are added up miss 0.1 and 0.5 by a rounding error, and `<=` would see it.
THRESHOLDS = np.arange(51) / 100


def pckh(
    pred: np.ndarray,
    gt: np.ndarray,
    visible: np.ndarray,
    head_size: np.ndarray,
    thresholds: Sequence[float] = THRESHOLDS,
) -> np.ndarray:
    """PCKh of every joint at every threshold, in percent.

    A joint is right when its distance to the truth is at most ``threshold * head_size``.

    Args:
        pred: Predicted keypoints, (N, K, 2), in pixels. A NaN is a wrong prediction.
        gt: True keypoints, (N, K, 2), in the same pixel frame. Not looked at where ``visible`` is not positive.
        visible: (N, K); positive where the joint is annotated.
        head_size: (N, ), in pixels.
        thresholds: T fractions of the head size. Defaults to 0, 0.01 .. 0.5.

    Returns:
        (T, K) float64 between 0 and 100; NaN for a joint that nobody in the set has annotated.

    Raises:
        InputError: The shapes do not belong together.
    """
    pred, gt, head_size, thresholds = (
        np.asarray(array, np.float64) for array in (pred, gt, head_size, thresholds)
    )
    annotated = np.asarray(visible) > 0
    if not (
        pred.ndim == 3
        and pred.shape[2:] == (2,)
        and pred.shape == gt.shape
        and annotated.shape == pred.shape[:2]
        and head_size.shape == pred.shape[:1]
    ):
        raise InputError(
            f'PCKh needs pred and gt (N, K, 2), visible (N, K) and head_size (N, ), not {pred.shape}, '
            f'{gt.shape}, {annotated.shape} and {head_size.shape}.'
        )
    distance = np.linalg.norm(np.where(annotated[..., None], pred - gt, 0), axis=-1)
    right = distance <= thresholds.reshape(-1, 1, 1) * head_size[:, None]
    with np.errstate(invalid='ignore'):  # 0 / 0 is the NaN of a joint without annotations
        return 100 * (right & annotated).sum(axis=1) / annotated.sum(axis=0)


def pckh_curves(
    pred: np.ndarray,
    gt: np.ndarray,
    visible: np.ndarray,
    head_size: np.ndarray,
    *,
    weights: str = 'annotations',
) -> dict[str, np.ndarray]:
    """PCKh against the threshold for the seven joint groups of MPII and their mean.

    Args:
        pred, gt, visible, head_size: As in :func:`pckh`, with MPII's 16 joints.
        weights: How 'Mean' averages the 14 joints that count: 'annotations' weighs each by the number of its
            annotations (HRNet, MMPose), 'equal' gives every joint that has annotations the same weight. Defaults to
            'annotations'.

    Returns:
        Eight arrays, (51, ), in percent at :data:`THRESHOLDS`: 'Head', 'Shoulder', 'Elbow', 'Wrist', 'Hip', 'Knee',
        'Ankle' and 'Mean'. A joint without annotations is left out of every average; a column with no other is NaN.

    Raises:
        InputError: The shapes do not belong together, or there are not 16 joints.
        KeyError: ``weights`` is neither of the two.
    """
    values = pckh(pred, gt, visible, head_size, THRESHOLDS)
    counts = (np.asarray(visible) > 0).sum(axis=0)
    if len(counts) != NUM_JOINTS:
        raise InputError(
            f'the columns of PCKh are made of the {NUM_JOINTS} joints of MPII, not of {len(counts)}.'
        )
    equal = (counts > 0).astype(int)

    def average(joints, weight):
        with np.errstate(invalid='ignore'):
            return np.nansum(values[:, joints] * weight[joints], axis=1) / weight[joints].sum()

    curves = {column: average(joints, equal) for column, joints in COLUMNS.items()}
    curves['Mean'] = average(SCORED_JOINTS, dict(annotations=counts, equal=equal)[weights])
    return curves


def pckh_figures(curves: Mapping[str, np.ndarray]) -> dict[str, float]:
    """The ten figures of a table row from :func:`pckh_curves`, in the order of the paper's columns.

    Returns:
        Percent as Python floats: the eight curves at threshold 0.5, then 'Mean@0.1', and 'AUC', the mean of 'Mean' over
        the 51 thresholds.
    """
    figures = {column: float(curve[-1]) for column, curve in curves.items()}
    figures['Mean@0.1'] = float(curves['Mean'][10])
    figures['AUC'] = float(curves['Mean'].mean())
    return figures


def pckh_table(rows: Mapping[str, Mapping[str, float]], *, weights: str) -> str:
    """The table as text: one line for each name in ``rows``, two decimals, and '-' for NaN.

    Args:
        rows: Maps a name to its :func:`pckh_figures`; at least one.
        weights: How 'Mean' was averaged, for the line above the table.
    """
    columns = list(next(iter(rows.values())))
    width = max(map(len, rows))
    lines = [
        f'PCKh@0.5 in percent, {MEAN_WEIGHTS[weights]}',
        ' ' * width + ''.join(f'{column:>10}' for column in columns),
    ]
    for name, figures in rows.items():
        cells = ('-' if np.isnan(figures[column]) else f'{figures[column]:.2f}' for column in columns)
        lines.append(f'{name:<{width}}' + ''.join(f'{cell:>10}' for cell in cells))
    return '\n'.join(lines)
