"""Convert LSP and LSP extended to MPII's layout: Johnson and Everingham, BMVC 2010 and CVPR 2011.

Both have a folder ``images`` and a file ``joints.mat`` of x, y and a flag for 14 joints in 1-based pixels.
LSP holds (3, 14, 2000), whose flag marks joints that are occluded, but annotated all the same. LSP extended
holds (14, 3, 10000), whose flag marks joints that are annotated.
"""

from pathlib import Path

import numpy as np

from hg_plugin.mpii_format import JOINTS, NUM_JOINTS, PIXELS_A_SCALE, save_annotations, to_zero_based
from hg_plugin.utils.array_files import load_arrays
from hg_plugin.utils.errors import InputError

from .head_boxes import write_ground_truth

# MPII's joint of each of LSP's; pelvis and thorax are missing
TO_MPII = [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9]
NECK_AND_HEAD = [JOINTS.index('neck'), JOINTS.index('head')]
# of the longer side of the box around the joints, for hands, feet and hair
MARGIN = 1.1


def prepare_lsp(folder, num_val: int | None = None) -> dict[str, int]:
    """Write ``mpii_train.json``, ``mpii_val.json`` and ``mpii_gt_val.mat`` into the folder's ``annotations``.

    The validation set of LSP is its published test set, the last half. LSP extended has none: persons at
    equal distances whose head is annotated are set aside.

    Args:
        folder: With ``joints.mat`` and ``images``.
        num_val: Persons of the validation set. Defaults to None: half of LSP, and 500 of LSP extended.

    Returns:
        The number of persons of ``train`` and ``val``.

    Raises:
        InputError: The files are missing, damaged or do not belong together.
    """
    folder = Path(folder)
    joints, visible = load_joints(folder / 'joints.mat')
    images = sorted(path.name for path in (folder / 'images').glob('*.jpg'))
    if len(images) != len(joints):
        raise InputError(
            f'{folder / "images"} holds {len(images)} .jpg images, but joints.mat {len(joints)} persons; '
            'use the folder as it was published.'
        )
    persons = np.flatnonzero(visible.any(axis=1))
    if visible[:, TO_MPII].all():  # LSP
        val = persons[len(persons) - (num_val or len(persons) // 2) :]
    else:
        with_head = persons[visible[persons][:, NECK_AND_HEAD].all(axis=1)]
        val = with_head[np.linspace(0, len(with_head) - 1, min(num_val or 500, len(with_head))).astype(int)]
    splits = dict(train=np.setdiff1d(persons, val), val=val)
    boxes = np.where(visible[..., None], joints, np.nan)
    for split, rows in splits.items():
        low, high = np.nanmin(boxes[rows], axis=1), np.nanmax(boxes[rows], axis=1)
        scale = MARGIN * (high - low).max(axis=1) / PIXELS_A_SCALE
        columns = dict(image=[images[row] for row in rows], center=(low + high) / 2, scale=scale)
        columns |= dict(joints=joints[rows], visible=visible[rows])
        save_annotations(folder / f'annotations/mpii_{split}.json', columns)
    truth = folder / 'annotations/mpii_gt_val.mat'
    write_ground_truth(folder / 'annotations/mpii_val.json', truth)
    return {split: len(rows) for split, rows in splits.items()}


def load_joints(path) -> tuple[np.ndarray, np.ndarray]:
    """Read ``joints.mat`` of LSP or LSP extended as MPII's joints.

    Returns:
        (N, 16, 2) in 0-based pixels, and (N, 16) bool, whether they are annotated.

    Raises:
        InputError: The file cannot be read, or has another shape.
    """
    (array,) = load_arrays(path, 'joints')
    if array.shape[:2] == (3, len(TO_MPII)):
        array = array.transpose(2, 1, 0)
        annotated = np.isfinite(array).all(axis=2)
    elif array.shape[:2] == (len(TO_MPII), 3):
        array = array.transpose(2, 0, 1)
        annotated = (array[..., 2] > 0) & np.isfinite(array).all(axis=2)
    else:
        raise InputError(
            f'{path}: joints has shape {array.shape}, but LSP has (3, 14, N) and LSP extended (14, 3, N).'
        )
    joints, visible = np.zeros((len(array), NUM_JOINTS, 2)), np.zeros((len(array), NUM_JOINTS), bool)
    joints[:, TO_MPII], visible[:, TO_MPII] = to_zero_based(array[..., :2]), annotated
    return joints, visible
