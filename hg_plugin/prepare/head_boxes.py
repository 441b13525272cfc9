"""Head boxes for PCKh, of a dataset in MPII's layout that has none."""

from collections.abc import Sequence

import numpy as np

from hg_plugin.mpii_format import JOINTS, load_annotations, save_ground_truth
from hg_plugin.utils.errors import InputError

# PCKh takes this share of a head box's diagonal as the head size
SHARE = 0.6


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
        neck, top = joints[:, ends].swapaxes(0, 1)
        headless = ~visible[:, ends].all(axis=1) | (neck == top).all(axis=1)
        if headless.any():
            raise InputError(
                f'{ann_file}, annotation {headless.argmax()}: {" and ".join(head)} are not both annotated, '
                'or the same; give head_boxes, or leave such persons out.'
            )
        middle, half = (neck + top) / 2, np.abs(top - neck) / 2 / SHARE
        head_boxes = np.stack([middle - half, middle + half], axis=1)
    save_ground_truth(out_file, joints, visible, head_boxes, names)
