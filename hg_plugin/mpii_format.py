"""The conventions of MPII Human Pose, and its files.

Files count pixels from 1, as MATLAB does. Everything in memory counts from 0, so each file is converted once,
where it is read or written.
"""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from hg_plugin.utils.array_files import load_arrays, save_arrays
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.json_files import LIMIT, read_json

# fmt: off
JOINTS = (
    'rank', 'rkne', 'rhip', 'lhip', 'lkne', 'lank', 'pelv', 'thor',
    'neck', 'head', 'rwri', 'relb', 'rsho', 'lsho', 'lelb', 'lwri',
)
# fmt: on
NUM_JOINTS = len(JOINTS)
# The columns of PCKh tables. Pelvis and thorax are never scored; the upper neck counts in the mean alone.
JOINT_GROUPS = dict(
    Head=[9], Shoulder=[12, 13], Elbow=[11, 14], Wrist=[10, 15], Hip=[2, 3], Knee=[1, 4], Ankle=[0, 5]
)
SCORED_JOINTS = [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15]

# `scale` is the person's height in units of 200 pixels. Loaders lower `center` by 15 pixels per unit to keep
# the feet inside the crop (Newell's training code, and all MPII loaders since).
PIXELS_A_SCALE = 200.0
CENTER_SHIFT = 15.0

# Beside mpii_test.json: the release's annolist of the test images, with all rectangles.
TEST_ANNOLIST = 'mpii_test_annolist.mat'


def to_zero_based(points) -> np.ndarray:
    """Convert pixel coordinates that count from 1, as in MPII's files."""
    return np.asarray(points, np.float64) - 1


def to_one_based(points) -> np.ndarray:
    """Convert pixel coordinates that count from 0, for MPII's files."""
    return np.asarray(points, np.float64) + 1


def save_predictions(path, pred: np.ndarray) -> None:
    """Write predictions in the layout that is published for MPII, atomically.

    Args:
        path: A ``.npz`` or ``.mat``, which gets the array ``preds``, (N, K, 2) float64, in 1-based pixels.
        pred: (N, K, 2), in 0-based pixels.

    Raises:
        InputError: The extension is a different one, or the file cannot be written.
    """
    save_arrays(path, preds=to_one_based(pred))


def load_predictions(path, num_persons: int, num_joints: int = NUM_JOINTS) -> np.ndarray:
    """Read predictions in any layout that is published for MPII.

    Args:
        path: A ``.mat`` (version 7.3 needs h5py), ``.npz`` or ``.h5`` with ``preds`` in 1-based pixels, of
            shape (N, K, 2), or transposed by MATLAB code to (K, 2, N) or (2, K, N).
        num_persons: N, from the annotation file.
        num_joints: K. Defaults to 16.

    Returns:
        (N, K, 2) float64, in 0-based pixels.

    Raises:
        InputError: The file cannot be read, has no ``preds``, or their shape is none of the three.
    """
    (preds,) = load_arrays(path, 'preds')
    n, k = num_persons, num_joints
    layouts = {(2, k, n): (2, 1, 0), (k, 2, n): (2, 0, 1), (n, k, 2): (0, 1, 2)}
    if preds.shape not in layouts:
        raise InputError(
            f'{path}: preds has shape {preds.shape}, but for the {n} persons of the ground truth it must be '
            f'one of ({n}, {k}, 2), ({k}, 2, {n}) and (2, {k}, {n}).'
        )
    return to_zero_based(preds.transpose(layouts[preds.shape]))


def save_ground_truth(
    path, gt: np.ndarray, visible: np.ndarray, head_boxes: np.ndarray, names: Sequence[str] = JOINTS
) -> None:
    """Write a ground truth file like MPII's ``mpii_gt_val.mat``, atomically.

    Args:
        path: The ``.mat`` file.
        gt: (N, K, 2) joints in 0-based pixels. A joint that is not visible is written as (0, 0).
        visible: (N, K), True where the joint is annotated.
        head_boxes: (N, 2, 2), left top and right bottom, in 0-based pixels.
        names: Of the K joints. Defaults to MPII's 16.

    Raises:
        InputError: The file cannot be written.
    """
    joints = np.where(visible[..., None], to_one_based(gt), 0.0)
    save_arrays(
        path,
        headboxes_src=to_one_based(head_boxes).transpose(1, 2, 0),
        pos_gt_src=joints.transpose(1, 2, 0),
        jnt_missing=np.logical_not(visible).T.astype(np.uint8),
        dataset_joints=np.array([[*names]], dtype=object),
    )


def load_ground_truth(path) -> dict[str, np.ndarray]:
    """Read MPII's ``mpii_gt_val.mat``, the ground truth that published results are computed on.

    It differs from the JSON file: 13 of the 44,240 joints of the validation set have a coordinate 0 here.

    Args:
        path: The file, with ``pos_gt_src`` (K, 2, N), ``jnt_missing`` (K, N) and ``headboxes_src``
            (2, 2, N). K is 16 in MPII.

    Returns:
        The arguments of :func:`hg_plugin.evaluation.pckh`: ``gt`` (N, K, 2) in 0-based pixels, ``visible``
        (N, K) bool, and ``head_size`` (N,), 0.6 of the head box's diagonal in pixels.

    Raises:
        InputError: The file cannot be read, its shapes do not match, or a value is not finite or a box empty.
    """
    joints, missing, boxes = load_arrays(path, 'pos_gt_src', 'jnt_missing', 'headboxes_src')
    k, n = len(joints), joints.shape[-1]
    if (joints.shape, missing.shape, boxes.shape) != ((k, 2, n), (k, n), (2, 2, n)):
        raise InputError(
            f'{path}: pos_gt_src, jnt_missing and headboxes_src must be (K, 2, N), (K, N) and (2, 2, N), '
            f'not {joints.shape}, {missing.shape} and {boxes.shape}.'
        )
    head_size = 0.6 * np.linalg.norm(boxes[1] - boxes[0], axis=0)
    known = np.isfinite(missing) & (np.isfinite(joints).all(axis=1) | (missing != 0))
    broken = np.flatnonzero(~(known.all(axis=0) & (head_size > 0) & np.isfinite(head_size)))
    if len(broken):
        raise InputError(
            f'{path}: person {broken[0]} (counted from 0) has a NaN or infinity in pos_gt_src, jnt_missing '
            'or headboxes_src, or a head box without size.'
        )
    return dict(gt=to_zero_based(joints).transpose(2, 0, 1), visible=missing.T == 0, head_size=head_size)


def load_head_boxes(path) -> np.ndarray:
    """Read the head boxes of a ground truth file: (N, 2, 2), left top and right bottom, in 0-based pixels."""
    return to_zero_based(load_arrays(path, 'headboxes_src')[0]).transpose(2, 0, 1)


def save_annotations(path, annotations: Mapping) -> None:
    """Write an annotation file in MPII's layout, atomically.

    Args:
        path: The JSON file.
        annotations: Columns as :func:`load_annotations` returns them. Coordinates are rounded to 3 decimals
            and scales to 5. A joint that is not visible is written as (-1, -1).

    Raises:
        InputError: The file cannot be written.
    """
    visible = annotations['visible']
    joints = np.where(visible[..., None], to_one_based(annotations['joints']), -1.0)
    columns = dict(
        image=annotations['image'],
        center=to_one_based(annotations['center']).round(3).tolist(),
        scale=[round(scale, 5) for scale in annotations['scale'].tolist()],
        joints=joints.round(3).tolist(),
        joints_vis=visible.astype(int).tolist(),
    )
    columns.update((key, values) for key, values in annotations.items() if key not in (*columns, 'visible'))
    rows = [dict(zip(columns, row)) for row in zip(*columns.values())]
    with atomic_write(path) as file:
        file.write(json.dumps(rows).encode())


def load_annotations(path, num_joints: int = NUM_JOINTS) -> dict:
    """Read an annotation file in MPII's layout.

    Args:
        path: A JSON list of N entries ``{image, center [x, y], scale, joints Kx2, joints_vis K}`` in
            1-based pixels. Entries may have further keys, the same in all. Where no entry has joints, as in
            HRNet's ``mpii_test.json``, none is visible.
        num_joints: K. Defaults to 16.

    Returns:
        A dict of columns: ``image``, a list of N file names; ``center`` (N, 2) and ``joints`` (N, K, 2) in
        0-based pixels; ``scale`` (N,); ``visible`` (N, K) bool; and a list for every further key.

    Raises:
        InputError: The file is missing or damaged, or an entry is wrong; the first such entry is named.
    """
    entries, problems = _read(path, num_joints)
    for index, problem, bad in problems:
        if bad:
            raise InputError(f'{path}, annotation {index}: {problem}; correct the file.')
    keys = ('center', 'scale', 'joints', 'joints_vis')
    arrays = {key: np.array([entry[key] for entry in entries], np.float64) for key in keys}
    columns = {key: [entry.get(key) for entry in entries] for key in entries[0] if key not in arrays}
    return dict(
        columns,
        center=to_zero_based(arrays['center']),
        scale=arrays['scale'],
        joints=to_zero_based(arrays['joints']),
        visible=arrays['joints_vis'] > 0,
    )


def find_problems(path, num_joints: int = NUM_JOINTS) -> list[tuple[int | None, str, bool]]:
    """All that is wrong with an annotation file, for someone to correct.

    Returns:
        For each problem the annotation's index, or None for the file as a whole; a sentence; and whether the
        file cannot be used. It can with a visibility that is neither 0 nor 1: above 0 it counts as 1.
    """
    try:
        return _read(path, num_joints)[1]
    except InputError as error:
        return [(None, str(error), True)]


def _read(path, num_joints: int) -> tuple[list[dict], list[tuple[int | None, str, bool]]]:
    """The entries of an annotation file, and what :func:`find_problems` finds in them."""
    content = read_json(path, 'a list of annotations')
    if not isinstance(content.value, list) or not content.value:
        content.fail('a list of annotations')
    entries = content.value
    unseen = dict(joints=np.zeros((num_joints, 2)).tolist(), joints_vis=[0] * num_joints)
    if all(isinstance(entry, dict) and not unseen.keys() & entry.keys() for entry in entries):  # a test set
        entries = [entry | unseen for entry in entries]
    shapes = dict(center=(2,), scale=(), joints=(num_joints, 2), joints_vis=(num_joints,))
    problems: list[tuple[int | None, str, bool]] = []
    annotated = {}
    for index, entry in enumerate(entries):
        if problem := _find_problem(entry, shapes):
            problems.append((index, problem, True))
            continue
        annotated[index] = max(entry['joints_vis']) > 0
        if others := sorted({*entry['joints_vis']} - {0, 1}):
            problems.append((index, f'joints_vis holds {others}, not only 0 and 1', False))
    if any(annotated.values()):
        text = 'has no annotated joint (joints_vis is nowhere 1)'
        problems += [(index, text, True) for index, seen in annotated.items() if not seen]
    return entries, sorted(problems)


def _find_problem(entry, shapes: Mapping) -> str | None:
    if not isinstance(entry, dict):
        return f'should be an object, but is {type(entry).__name__}'
    missing = {'image', *shapes} - entry.keys()
    if missing:
        return f'lacks {", ".join(sorted(missing))}'
    if not isinstance(entry['image'], str):
        return f'image should be a file name, but is {entry["image"]!r}'
    for key, shape in shapes.items():
        try:
            values = np.array(entry[key])
        except ValueError:
            values = np.array(None)
        if values.dtype.kind not in 'biuf':  # NumPy would also take text for numbers
            return f'{key} should hold numbers of shape {shape}, but is ragged or not numeric'
        if values.shape != shape:
            return f'{key} should have shape {shape}, but is {values.shape}'
        if not (np.abs(values) < LIMIT).all():
            return f'{key} holds NaN, infinity or a number beyond {LIMIT:g}'
    if entry['scale'] * PIXELS_A_SCALE < 1:
        return f'scale {entry["scale"]} makes the person smaller than a pixel'
    return None
