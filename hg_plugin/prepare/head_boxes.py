"""Head boxes for PCKh, of a dataset in MPII's layout that has none."""

from collections.abc import Sequence

import numpy as np

from hg_plugin.mpii_format import JOINTS, load_annotations, save_ground_truth
from hg_plugin.utils.errors import InputError

# PCKh takes this share of a head box's diagonal as the head size
SHARE = 0.6


def head_boxes_of(joints: np.ndarray, neck: int, head: int) -> np.ndarray:
    """Boxes (N, 2, 2) about the heads of persons (N, K, 2), whose head size is from the neck to the top."""
    middle, half = (joints[:, head] + joints[:, neck]) / 2, (joints[:, head] - joints[:, neck]) / 2
    half = np.abs(half) / SHARE
    return np.stack([middle - half, middle + half], axis=1)


def write_ground_truth(
    ann_file,
    out_file,
    *,
    names: Sequence[str] = JOINTS,
    head: tuple[str, str] = ('neck', 'head'),
    head_boxes: np.ndarray | None = None,
) -> None:
    """Write the ground truth of one's own dataset, for ``headbox_file`` and ``hg_plugin eval_pckh``.

    Args:
        ann_file: Annotations in MPII's layout, see :func:`hg_plugin.mpii_format.load_annotations`.
        out_file: The file to write, such as ``mpii_gt_val.mat``.
        names: Of the K joints, in the order of the annotations. Defaults to MPII's 16.
        head: The joints at both ends of the head, between which the head size is measured where there are no
            ``head_boxes``. Defaults to ('neck', 'head').
        head_boxes: (N, 2, 2), left top and right bottom, in 0-based pixels. Defaults to None.

    Raises:
        InputError: The annotations are wrong, a person has no head, or the file cannot be written.
    """
    annotations = load_annotations(ann_file, len(names))
    joints, visible = annotations['joints'], annotations['visible']
    if head_boxes is None:
        ends = [[*names].index(name) for name in head]
        head_boxes = head_boxes_of(joints, *ends)
        headless = ~visible[:, ends].all(axis=1) | (joints[:, ends[0]] == joints[:, ends[1]]).all(axis=1)
        if headless.any():
            raise InputError(
                f'{ann_file}, annotation {headless.argmax()}: {" and ".join(head)} are not both annotated, '
                'or the same; give head_boxes, or leave such persons out.'
            )
    save_ground_truth(out_file, joints, visible, head_boxes, names)
