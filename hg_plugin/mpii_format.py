"""Prediction files as they are published for MPII, and the ground truth to hold them against.

Files count pixels from 1, as MATLAB and MPII do; the arrays that are passed in and out here count from 0.
"""

from pathlib import Path

import numpy as np
from scipy.io import loadmat, savemat

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write

JOINTS = (
    'rank',
    'rkne',
    'rhip',
    'lhip',
    'lkne',
    'lank',
    'pelv',
    'thor',
    'neck',
    'head',
    'rwri',
    'relb',
    'rsho',
    'lsho',
    'lelb',
    'lwri',
)
NUM_JOINTS = len(JOINTS)
# the columns of PCKh tables; pelvis and thorax are in none, the upper neck is in the mean alone
COLUMNS = {
    'Head': [9],
    'Shoulder': [12, 13],
    'Elbow': [11, 14],
    'Wrist': [10, 15],
    'Hip': [2, 3],
    'Knee': [1, 4],
    'Ankle': [0, 5],
}
SCORED_JOINTS = [0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15]

# MPII gives a person's height in units of 200 pixels; the crop's centre moves down by 15 pixels a unit, so that feet stay in
# (Newell's training code, and all MPII loaders since).
PIXELS_A_SCALE = 200.0
CENTER_SHIFT = 15.0

# Beside mpii_test.json: the pictures of the test set with all their rectangles.
TEST_ANNOLIST = 'mpii_test_annolist.mat'

WRITERS = {'.npz': np.savez, '.mat': lambda file, **arrays: savemat(file, arrays)}


def check_prediction_file(path) -> None:
    """Raises an InputError unless the name ends in an extension that :func:`save_predictions` writes."""
    if Path(path).suffix not in WRITERS:
        raise InputError(
            f'predictions are written as {" or ".join(WRITERS)}, so rename the prediction file {path}.'
        )


def save_predictions(path, pred: np.ndarray) -> None:
    """Writes a prediction file, whole or not at all.

    Args:
        path: A ``.npz`` or ``.mat``; gets the array ``preds``, (N, 16, 2) float64, in 1-based pixels.
        pred: (N, 16, 2), in 0-based pixels.

    Raises:
        InputError: The extension is another one, or the file cannot be written.
    """
    check_prediction_file(path)
    with atomic_write(path) as file:
        WRITERS[Path(path).suffix](file, preds=np.asarray(pred, np.float64) + 1)


def _read_npz(path, names) -> dict:
    with np.load(path) as file:
        return {name: file[name] for name in names if name in file.files}


def _read_mat(path, names) -> dict:
    try:
        return loadmat(path, variable_names=names)
    except NotImplementedError:  # version 7.3 is HDF5 with MATLAB's axes, the reverse of NumPy's
        return {name: array.T for name, array in _read_hdf5(path, names).items()}


def _read_hdf5(path, names) -> dict:
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            f'{path} is an HDF5 file, and reading it needs the package h5py: pip install h5py.'
        ) from error
    with h5py.File(path, 'r') as file:
        return {name: file[name][()] for name in names if name in file}


READERS = {'.npz': _read_npz, '.mat': _read_mat, '.h5': _read_hdf5, '.hdf5': _read_hdf5}


def _read_arrays(path, *names) -> list:
    """The arrays of these names from a file of any kind in :data:`READERS`, as float64."""
    suffix = Path(path).suffix
    if suffix not in READERS:
        raise InputError(f'{path} is none of {", ".join(READERS)}; convert it to one of these.')
    if not Path(path).is_file():
        raise InputError(f'there is no file {path}.')
    try:
        arrays = READERS[suffix](path, names)
    except InputError:
        raise
    except (
        Exception
    ) as error:  # the readers raise anything on a broken file: zlib's, zipfile's, a TypeError ...
        raise InputError(
            f'{path} cannot be read ({type(error).__name__}: {error}); is it a complete {suffix} file?'
        ) from error
    for name in names:
        if name not in arrays:
            raise InputError(f'{path} has no array called {name}.')
        if getattr(arrays[name], 'dtype', np.dtype(object)).kind not in 'biuf':
            raise InputError(f'{path}: {name} is no array of real numbers.')
    return [np.asarray(arrays[name], np.float64) for name in names]


def load_predictions(path, num_persons: int) -> np.ndarray:
    """Reads a prediction file.

    Args:
        path: A ``.mat`` (version 7.3 and ``.h5`` need h5py), ``.npz`` or ``.h5`` with ``preds``, 1-based pixels, of
            shape (N, 16, 2), or transposed as MATLAB code leaves it, (16, 2, N) or (2, 16, N).
        num_persons: N, as the annotation file has it.

    Returns:
        (N, 16, 2) float64, in 0-based pixels.

    Raises:
        InputError: The file cannot be read, has no ``preds``, its shape is not plainly one of the three (for N = 2 the
            first and the third look alike), or some of it is not finite.
    """
    (preds,) = _read_arrays(path, 'preds')
    axes = dict(person=num_persons, joint=NUM_JOINTS, xy=2)
    layouts = [
        layout
        for layout in (('person', 'joint', 'xy'), ('joint', 'xy', 'person'), ('xy', 'joint', 'person'))
        if preds.shape == tuple(axes[axis] for axis in layout)
    ]
    if len(layouts) != 1:
        n = num_persons
        raise InputError(
            f'{path}: preds has shape {preds.shape}, but for the {n} persons of the ground truth it must '
            f'be plainly one of ({n}, 16, 2), (16, 2, {n}) and (2, 16, {n}).'
        )
    preds = preds.transpose([layouts[0].index(axis) for axis in axes])
    broken = np.flatnonzero(~np.isfinite(preds).all(axis=(1, 2)))
    if len(broken):
        raise InputError(
            f'{path}: the predictions of {len(broken)} persons are not finite, the first in row '
            f'{broken[0]} (counted from 0).'
        )
    return preds - 1


def load_ground_truth(path) -> dict[str, np.ndarray]:
    """Reads MPII's ``mpii_gt_val.mat``, the ground truth that published figures are computed on.

    It is not quite the JSON's: 13 of the validation set's 44,240 joints have a coordinate 0 here and another one there.

    Args:
        path: The file, with ``pos_gt_src`` (16, 2, N), ``jnt_missing`` (16, N) and ``headboxes_src`` (2, 2, N).

    Returns:
        The arguments of :func:`pckh`: ``gt`` (N, 16, 2) in 0-based pixels, ``visible`` (N, 16) bool, and ``head_size``
        (N, ), 0.6 of the head box's diagonal in pixels.

    Raises:
        InputError: The file cannot be read, its shapes do not belong together, or a head box has no size.
    """
    joints, missing, boxes = _read_arrays(path, 'pos_gt_src', 'jnt_missing', 'headboxes_src')
    n = joints.shape[-1]
    if (joints.shape, missing.shape, boxes.shape) != ((NUM_JOINTS, 2, n), (NUM_JOINTS, n), (2, 2, n)):
        raise InputError(
            f'{path}: pos_gt_src, jnt_missing and headboxes_src must be (16, 2, N), (16, N) and '
            f'(2, 2, N), not {joints.shape}, {missing.shape} and {boxes.shape}.'
        )
    head_size = 0.6 * np.linalg.norm(boxes[1] - boxes[0], axis=0)
    broken = np.flatnonzero(
        ~(np.isfinite(missing).all(axis=0) & (np.isfinite(joints).all(axis=1) | (missing != 0)).all(axis=0))
    )
    if len(broken):
        raise InputError(
            f'{path}: pos_gt_src or jnt_missing of person {broken[0]} (counted from 0) holds NaN or infinity.'
        )
    flat = np.flatnonzero(~((head_size > 0) & np.isfinite(head_size)))
    if len(flat):
        raise InputError(
            f'{path}: the head box in column {flat[0]} of headboxes_src (counted from 0) has no size.'
        )
    return dict(gt=joints.transpose(2, 0, 1) - 1, visible=missing.T == 0, head_size=head_size)
