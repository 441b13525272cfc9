"""Convert MPII's official release file, ``mpii_human_pose_v1_u12_1.mat``, to the annotations in common use.

The release holds images, ``RELEASE.annolist``, and the persons in each, ``annorect``. The annotations are:

- **train** and **val**: the persons of training images (``img_train`` 1) that have ``objpos``, ``scale`` and
  ``annopoints``. Tompson et al. (CVPR 2015) set 2,958 of them aside for validation. Their images give no
  training persons, which leaves 22,246 of the other 25,925.
- **test**: the 7,247 persons of test images that ``single_person`` lists, because they stand far enough from
  others. Only MPII's server knows their joints.

An annotated joint counts, visible or occluded, so ``is_visible``, which is a number, a character or missing,
is ignored. Positions in memory are 0-based pixels.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import rich.progress
from rich.console import Console
from scipy.io import loadmat

from hg_plugin.mpii_format import (
    NUM_JOINTS,
    TEST_ANNOLIST,
    save_annotations,
    save_ground_truth,
    to_zero_based,
)
from hg_plugin.utils.array_files import read_file, save_arrays
from hg_plugin.utils.errors import InputError

RELEASE_FILE = 'mpii_human_pose_v1_u12_1.mat'
NUM_PERSONS = dict(train=22_246, val=2_958)
VAL_SPLIT = Path(__file__).with_name('mpii_val.txt')

# The published mpii_gt_val.mat has 13 joints with a coordinate 0 where the release has another one. They are
# kept, because published results are computed with them. Row, joint, axis:
# fmt: off
ZEROS_OF_TRUTH = (
    (682, 0, 0), (786, 5, 0), (1081, 9, 1), (1897, 11, 0), (2636, 9, 1), (2739, 0, 0), (2763, 0, 0),
    (2763, 0, 1), (2763, 1, 0), (2763, 1, 1), (2763, 4, 0), (2763, 4, 1), (2763, 5, 0), (2763, 5, 1),
    (2775, 9, 1), (2897, 9, 1), (2921, 9, 1),
)
# fmt: on


# Without squeeze_me every value of a MATLAB file is a two-dimensional array, also a scalar. A field that no
# rectangle of an image has is missing from the dtype of that image's annorect.


def _structs(struct, name: str) -> np.ndarray:
    """Return the struct array in a field as a vector, which is empty if there is none."""
    array = struct[name] if name in struct.dtype.names else None
    if isinstance(array, np.ndarray) and array.dtype.names:
        return array.ravel()
    return np.empty(0, [('nothing', object)])


def _numbers(structs: np.ndarray, *names: str) -> np.ndarray:
    """Return the numbers in these fields of N structs, (N, len(names)) float64, NaN where missing."""
    numbers = np.full((len(structs), len(names)), np.nan)
    for column, name in enumerate(names):
        if name in structs.dtype.names:
            numbers[:, column] = [
                array.item(0) if array.size and array.dtype.kind in 'biuf' else np.nan
                for array in structs[name]
            ]
    return numbers


def _persons(image) -> list[dict]:
    """Convert the rectangles of an image."""
    persons = []
    rects = _structs(image, 'annorect')
    for rect, (scale, *box) in zip(rects, _numbers(rects, 'scale', 'x1', 'y1', 'x2', 'y2')):
        joints = np.full((NUM_JOINTS, 2), np.nan)
        for annopoints in _structs(rect, 'annopoints'):
            for x, y, joint in _numbers(_structs(annopoints, 'point'), 'x', 'y', 'id').tolist():
                if 0 <= joint < NUM_JOINTS:
                    joints[int(joint)] = x, y
        joints[np.isnan(joints).any(axis=1)] = np.nan
        position = _numbers(_structs(rect, 'objpos'), 'x', 'y')
        center = position[0] if len(position) else np.full(2, np.nan)
        points = dict(center=center, joints=joints, head_box=np.reshape(box, (2, 2)))
        persons.append(dict({key: to_zero_based(value) for key, value in points.items()}, scale=scale))
    return persons


def _read_release(path) -> tuple[list[dict], np.ndarray]:
    with rich.progress.open(path, 'rb', console=Console(stderr=True), description='Reading') as file:
        # mat_dtype, because MATLAB packs whole numbers into small integers, but they are written as doubles
        release = loadmat(file, mat_dtype=True, variable_names=['RELEASE'])['RELEASE'].ravel()[0]
    annolist, img_train, single_person = (
        release[name].ravel() for name in ('annolist', 'img_train', 'single_person')
    )
    persons = []
    for index, (image, train, single) in enumerate(zip(annolist, img_train, single_person, strict=True)):
        name = str(_structs(image, 'image')[0]['name'].item(0))
        place = dict(image=name, image_index=index, train=bool(train))
        for row, person in enumerate(_persons(image)):
            persons.append(person | place | dict(person_index=row, single=row + 1 in single))
    return persons, annolist[img_train == 0].reshape(1, -1)


def read_release(path) -> tuple[list[dict], np.ndarray]:
    """Read MPII's release file and show progress.

    Args:
        path: ``mpii_human_pose_v1_u12_1.mat`` as MPII distributes it.

    Returns:
        All rectangles in the release's order, and the (1, M) struct array ``annolist`` of the test images. A
        rectangle has ``image``, the file name; ``image_index`` and ``person_index``, the 0-based rows in
        ``annolist`` and ``annorect``; ``train`` and ``single``, whether the image is one of training and
        ``single_person`` lists the rectangle; and, with NaN for what is missing, ``center`` (2,), ``scale``,
        ``joints`` (16, 2) and ``head_box`` (2, 2).

    Raises:
        InputError: The file is missing, damaged, of version 7.3, or not the release.
    """
    return read_file(path, _read_release, f"get {RELEASE_FILE} from MPII's site")


def read_val_split() -> list[dict]:
    """Read the 2,958 persons of the standard validation set: image, center and scale as in mpii_val.json."""
    rows = [line.split() for line in VAL_SPLIT.read_text('utf-8').splitlines() if not line.startswith('#')]
    return [
        dict(image=f'{image}.jpg', center=[float(x), float(y)], scale=float(scale))
        for image, x, y, scale in rows
    ]


def split_persons(persons: Sequence[dict]) -> dict[str, list[dict]]:
    """Divide the rectangles of :func:`read_release`, complete or not, into the usual sets.

    Returns:
        - ``train`` and ``test``, in the release's order;
        - ``val``, in the order of published prediction files, each with its ``row`` there;
        - ``left_out``: annotated persons that share an image with one of ``val``.
    """
    placed = [person for person in persons if not np.isnan([*person['center'], person['scale']]).any()]
    annotated = [person for person in placed if person['train'] and not np.isnan(person['joints']).all()]
    by_image = defaultdict(list)
    for person in annotated:
        by_image[person['image']].append(person)
    val = []
    entries = read_val_split()
    for row, entry in enumerate(entries):
        candidates = by_image[entry['image']]
        wanted = np.array([*to_zero_based(entry['center']), entry['scale']])
        distances = [abs(wanted - [*person['center'], person['scale']]).max() for person in candidates]
        if distances and min(distances) < 0.01:  # the list has three decimals
            val.append(dict(candidates.pop(np.argmin(distances)), row=row))
    left_out = [person for image in {entry['image'] for entry in entries} for person in by_image.pop(image)]
    return dict(
        train=[*chain.from_iterable(by_image.values())],
        val=val,
        test=[person for person in placed if person['single'] and not person['train']],
        left_out=left_out,
    )


def _save_split(folder: Path, split: str, persons: Sequence[dict]) -> None:
    columns = {key: [person[key] for person in persons] for key in persons[0]}
    joints = np.stack(columns['joints'])
    visible = ~np.isnan(joints).any(axis=2)
    annotations = dict(
        image=columns['image'],
        center=np.stack(columns['center']),
        scale=np.array(columns['scale']).round(3),
        joints=joints,
        visible=visible,
    )
    if split == 'test':
        annotations.update(image_index=columns['image_index'], person_index=columns['person_index'])
    save_annotations(folder / f'mpii_{split}.json', annotations)
    if split == 'val':
        for row, joint, axis in ZEROS_OF_TRUTH:
            if row in columns['row']:
                joints[columns['row'].index(row), joint, axis] = to_zero_based(0)
        save_ground_truth(folder / 'mpii_gt_val.mat', joints, visible, np.stack(columns['head_box']))


def prepare_mpii(mat_file, out_dir, *, allow_partial: bool = False) -> dict[str, list[dict]]:
    """Write MPII's annotations from its release file; nothing if that file is wrong.

    Write to ``out_dir/annotations``:

    - ``mpii_train.json``, and ``mpii_val.json`` and ``mpii_gt_val.mat`` in the published order;
    - ``mpii_test.json``, whose persons have no joints, but ``image_index`` and ``person_index``, their
      0-based rows in the release's ``annolist`` and ``annorect``;
    - ``mpii_test_annolist.mat``, the base of a submission.

    A set without persons gets no file.

    Args:
        mat_file: ``mpii_human_pose_v1_u12_1.mat``.
        out_dir: The data root, such as ``data/mpii``.
        allow_partial: Accept a part of the release. Predictions on its validation set are not comparable with
            published ones. Defaults to False.

    Returns:
        The lists of :func:`split_persons`.

    Raises:
        InputError: The release file is missing, damaged or a different one, or does not have 22,246 training
            and 2,958 validation persons; or a file cannot be written.
    """
    rectangles, test_annolist = read_release(mat_file)
    persons = split_persons(rectangles)
    counts = {split: len(persons[split]) for split in NUM_PERSONS}
    if counts != NUM_PERSONS and not allow_partial:
        raise InputError(
            f'{mat_file} has {counts["train"]:,} of {NUM_PERSONS["train"]:,} training and '
            f'{counts["val"]:,} of {NUM_PERSONS["val"]:,} validation persons, so it is not the complete '
            f'{RELEASE_FILE}; get it again, or allow a partial conversion.'
        )
    folder = Path(out_dir) / 'annotations'
    for split in ('train', 'val', 'test'):
        if persons[split]:
            _save_split(folder, split, persons[split])
    if persons['test']:
        save_arrays(folder / TEST_ANNOLIST, annolist=test_annolist)
    return persons
