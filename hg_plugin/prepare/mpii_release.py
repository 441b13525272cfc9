"""From MPII's official release file, ``mpii_human_pose_v1_u12_1.mat``, to the annotations that everyone uses.

The release holds pictures, ``RELEASE.annolist``, and the persons in each, ``annorect``. The usual annotations are:

- **train** and **val**: the persons of training pictures (``img_train`` 1) that have ``objpos``, ``scale`` and
  ``annopoints``. Tompson et al. (CVPR 2015) set 2,958 of them aside for validation; a picture that one of these is in
  gives no training persons, which leaves 22,246 of the 25,925 others.
- **test**: the persons of test pictures that ``single_person`` lists, 7,247 of them, as they stand far enough from
  others; MPII's server scores these, and keeps their joints to itself.

A joint that is annotated counts, seen or occluded, so that ``is_visible``, which is a number, a character or missing,
is not looked at. Everything stays in MPII's 1-based pixels.
"""

import contextlib
import io
import json
import math
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmengine.utils import ProgressBar
from PIL import Image
from scipy.io import loadmat, savemat

from hg_plugin.mpii_format import JOINTS, TEST_ANNOLIST
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write

RELEASE_FILE = 'mpii_human_pose_v1_u12_1.mat'
NUM_PERSONS = dict(train=22_246, val=2_958)
VAL_SPLIT = Path(__file__).with_name('mpii_val.txt')

# The published mpii_gt_val.mat has 13 joints with a coordinate 0 where the release has another: row, joint, axis. They
# are kept, because published figures are computed with them.
ZEROS_OF_TRUTH = (
    (682, 0, 0),
    (786, 5, 0),
    (1081, 9, 1),
    (1897, 11, 0),
    (2636, 9, 1),
    (2739, 0, 0),
    (2763, 0, 0),
    (2763, 0, 1),
    (2763, 1, 0),
    (2763, 1, 1),
    (2763, 4, 0),
    (2763, 4, 1),
    (2763, 5, 0),
    (2763, 5, 1),
    (2775, 9, 1),
    (2897, 9, 1),
    (2921, 9, 1),
)


class _Meter(io.FileIO):
    """A file that shows how much of it has been read, in units of the 128 KiB that SciPy reads at a time."""

    def __init__(self, path):
        super().__init__(path)
        self.bar = ProgressBar(math.ceil(os.path.getsize(path) / 2**17), file=sys.stderr)

    def read(self, size=-1):
        content = super().read(size)
        blocks = math.ceil(self.tell() / 2**17) - self.bar.completed
        if blocks > 0:  # not where SciPy looks at the header again
            self.bar.update(blocks)
        return content


# Without squeeze_me every value of a MATLAB file is a two-dimensional array, be it a struct array of length 1, a
# scalar or empty. A field that no rectangle of a picture has is missing from the dtype of that picture's annorect.


def _structs(array) -> np.ndarray:
    """A struct array as a vector; an empty one where there is anything else, such as nothing."""
    return (
        array.ravel()
        if isinstance(array, np.ndarray) and array.dtype.names
        else np.empty(0, [('nothing', object)])
    )


def _field(struct, name: str) -> np.ndarray | None:
    """The array in a struct's field, None where the field is missing or empty."""
    array = struct[name] if name in struct.dtype.names else None
    return array if isinstance(array, np.ndarray) and array.size else None


def _numbers(structs: np.ndarray, *names: str) -> np.ndarray:
    """The numbers in these fields of N structs, (N, len(names)) float64, NaN where there is none."""
    numbers = np.full((len(structs), len(names)), np.nan)
    for column, name in enumerate(names):
        if name in structs.dtype.names:
            numbers[:, column] = [
                array.item(0) if array.size and array.dtype.kind in 'biuf' else np.nan
                for array in structs[name]
            ]
    return numbers


def _persons(annorect) -> list[dict]:
    """The rectangles of a picture as arrays, with NaN for what they lack."""
    persons = []
    rects = _structs(annorect)
    for rect, (scale, *box) in zip(rects, _numbers(rects, 'scale', 'x1', 'y1', 'x2', 'y2')):
        joints = np.full((len(JOINTS), 2), np.nan)
        for annopoints in _structs(_field(rect, 'annopoints')):
            for x, y, joint in _numbers(_structs(_field(annopoints, 'point')), 'x', 'y', 'id').tolist():
                if 0 <= joint < len(JOINTS):
                    joints[int(joint)] = x, y
        joints[np.isnan(joints).any(axis=1)] = np.nan
        position = _numbers(_structs(_field(rect, 'objpos')), 'x', 'y')
        persons.append(
            dict(
                center=position[0] if len(position) else np.full(2, np.nan),
                scale=scale,
                joints=joints,
                head_box=np.reshape(box, (2, 2)),
            )
        )
    return persons


def read_release(path) -> dict:
    """Reads MPII's release file, showing progress.

    Args:
        path: ``mpii_human_pose_v1_u12_1.mat`` as MPII distributes it.

    Returns:
        ``pictures``, a list in the release's order of ``dict(image, train, persons, single)``: the file's name, whether
        it is in the training set, all its rectangles, and the 0-based rows of those that ``single_person`` lists. A
        person is ``dict(center (2, ), scale, joints (16, 2), head_box (2, 2))`` with NaN where something is missing.
        And ``test_annolist``, (1, M): ``annolist`` of the test pictures as SciPy read it.

    Raises:
        InputError: The file is missing, damaged, of version 7.3, or another one.
    """
    if not os.path.isfile(path):
        raise InputError(f"there is no file {path}; get {RELEASE_FILE} from MPII's site.")
    try:
        with _Meter(path) as file:
            # mat_dtype, because MATLAB packs whole numbers into small integers, which would be written back as such
            content = loadmat(file, mat_dtype=True, variable_names=['RELEASE'])
    except NotImplementedError as error:
        raise InputError(
            f'{path} has been saved again as version 7.3; use {RELEASE_FILE} as MPII distributes it.'
        ) from error
    except (
        Exception
    ) as error:  # SciPy raises anything on a broken file: zlib's, a TypeError, a MemoryError ...
        raise InputError(
            f'{path} cannot be read ({type(error).__name__}: {error}); was it cut off? '
            f'Get {RELEASE_FILE} again.'
        ) from error
    finally:
        sys.stderr.write('\n')

    release = _structs(content.get('RELEASE'))
    fields = [
        _field(struct, name) for struct in release for name in ('annolist', 'img_train', 'single_person')
    ]
    if len(fields) != 3 or any(field is None for field in fields) or not fields[0].dtype.names:
        raise InputError(
            f'{path} holds no RELEASE with annolist, img_train and single_person; '
            f"is it MPII's {RELEASE_FILE}?"
        )
    annolist, img_train, single_person = (field.ravel() for field in fields)
    if not len(annolist) == len(img_train) == len(single_person):
        raise InputError(
            f'{path}: annolist, img_train and single_person have {len(annolist)}, {len(img_train)} and '
            f'{len(single_person)} entries, not one for each picture; get {RELEASE_FILE} again.'
        )
    pictures = []
    for index, (picture, train, single) in enumerate(zip(annolist, img_train, single_person)):
        image = _structs(_field(picture, 'image'))
        name = _field(image[0], 'name') if len(image) else None
        if name is None:
            raise InputError(f'{path}: annolist({index + 1}) has no image.name; get {RELEASE_FILE} again.')
        pictures.append(
            dict(
                image=str(name.item(0)),
                train=bool(train),
                persons=_persons(_field(picture, 'annorect')),
                single=sorted(int(row) - 1 for row in np.ravel(single)),
            )
        )
    return dict(pictures=pictures, test_annolist=annolist[np.asarray(img_train) == 0].reshape(1, -1))


def read_val_split() -> list[dict]:
    """The standard validation set, ``dict(image, center [x, y], scale)`` for 2,958 persons, in the published order."""
    rows = [line.split() for line in VAL_SPLIT.read_text().splitlines() if not line.startswith('#')]
    return [
        dict(image=f'{image}.jpg', center=[float(x), float(y)], scale=float(scale))
        for image, x, y, scale in rows
    ]


def split_persons(pictures: Sequence[dict]) -> dict[str, list[dict]]:
    """Divides persons into the usual sets.

    Args:
        pictures: As :func:`read_release` gives them, complete or not.

    Returns:
        Lists of persons: ``train``, in the release's order; ``val``, in the order of published prediction files, each
        with its ``row`` there; ``test``, in the release's order; ``left_out``, those annotated persons that share
        a picture with one of ``val``; and ``unplaced``, those that ``single_person`` lists for the test set, but that
        lack ``objpos`` or ``scale`` and so cannot be cropped. To what :func:`read_release` gives of a person, ``image``, ``image_index`` and
        ``person_index`` are added, 0-based rows in ``annolist`` and ``annorect``.
    """
    annotated, test, unplaced = {}, [], []
    for index, picture in enumerate(pictures):
        for row, person in enumerate(picture['persons']):
            person = dict(person, image=picture['image'], image_index=index, person_index=row)
            placed = not np.isnan([*person['center'], person['scale']]).any()
            if not picture['train']:
                if row in picture['single']:
                    (test if placed else unplaced).append(person)
            elif placed and not np.isnan(person['joints']).all():
                annotated.setdefault(picture['image'], []).append(person)

    val, val_images = [], set()
    for row, listed in enumerate(read_val_split()):
        val_images.add(listed['image'])

        def difference(person):
            return max(*np.abs(person['center'] - listed['center']), abs(person['scale'] - listed['scale']))

        person = min(annotated.get(listed['image'], []), key=difference, default=None)
        if person is not None and difference(person) < 0.01:  # the list has three decimals
            val.append(dict(person, row=row))
    chosen = {(person['image_index'], person['person_index']) for person in val}
    others = [
        person
        for persons in annotated.values()
        for person in persons
        if (person['image_index'], person['person_index']) not in chosen
    ]
    return dict(
        train=[person for person in others if person['image'] not in val_images],
        val=val,
        test=test,
        left_out=[person for person in others if person['image'] in val_images],
        unplaced=unplaced,
    )


def _annotation(person: dict) -> dict:
    """A person as the JSON files have it: three decimals, and -1, -1 for a joint that is not annotated."""
    missing = np.isnan(person['joints']).any(axis=1)
    return dict(
        image=person['image'],
        center=person['center'].round(3).tolist(),
        scale=round(float(person['scale']), 3),
        joints=np.where(missing[:, None], -1.0, person['joints'].round(3)).tolist(),
        joints_vis=(~missing).astype(int).tolist(),
    )


def _ground_truth(mat_file, persons: Sequence[dict]) -> dict:
    """The arrays of mpii_gt_val.mat, with 0, 0 for a joint that is not annotated."""
    joints = np.stack([person['joints'] for person in persons], axis=2)
    boxes = np.stack([person['head_box'] for person in persons], axis=2)
    flat = np.flatnonzero(~(boxes[0] < boxes[1]).all(axis=0))
    if len(flat):
        person = persons[flat[0]]
        raise InputError(
            f'{mat_file}: the validation person annolist({person["image_index"] + 1}).annorect('
            f'{person["person_index"] + 1}) in {person["image"]} has no head box x1 y1 x2 y2; '
            f'get {RELEASE_FILE} again.'
        )
    columns = {person['row']: column for column, person in enumerate(persons)}
    truth = np.nan_to_num(joints)
    for row, joint, axis in ZEROS_OF_TRUTH:
        if row in columns:
            truth[joint, axis, columns[row]] = 0
    return dict(
        headboxes_src=boxes,
        pos_gt_src=truth,
        jnt_missing=np.isnan(joints).any(axis=1).astype(np.uint8),
        dataset_joints=np.array([JOINTS], dtype=object),
    )


def _mat(arrays: dict) -> bytes:
    """The content of a MATLAB file with these variables."""
    file = io.BytesIO()
    savemat(file, arrays, do_compression=True)
    return file.getvalue()


def prepare_mpii(mat_file, out_dir, *, allow_partial: bool = False) -> dict[str, list[dict]]:
    """Writes MPII's annotations from its release file; nothing, where that file is wrong.

    Into ``out_dir/annotations`` go ``mpii_train.json``, ``mpii_val.json`` and ``mpii_gt_val.mat`` (row i is annotation
    i, in the order of published prediction files), ``mpii_test.json``, whose persons have no joints, but
    ``image_index`` and ``person_index``, 0-based rows in the release's ``annolist`` and ``annorect``, and
    ``mpii_test_annolist.mat``, which a submission is made from. A set without a person gets no file.

    Args:
        mat_file: ``mpii_human_pose_v1_u12_1.mat``.
        out_dir: The data root, such as ``data/mpii``.
        allow_partial: Whether to accept a part of the release. Predictions on its validation set cannot be compared
            with published ones. Defaults to False.

    Returns:
        What :func:`split_persons` does.

    Raises:
        InputError: The release file is missing, damaged or another one; it has not 22,246 training and 2,958
            validation persons, or, with ``allow_partial``, none at all; or a file cannot be written.
    """
    release = read_release(mat_file)
    persons = split_persons(release['pictures'])
    counts = {split: len(persons[split]) for split in NUM_PERSONS}
    if counts != NUM_PERSONS and not allow_partial:
        raise InputError(
            f'{mat_file} has {counts["train"]:,} of {NUM_PERSONS["train"]:,} training and '
            f'{counts["val"]:,} of {NUM_PERSONS["val"]:,} validation persons, so it is not the whole of '
            f'{RELEASE_FILE}; get it again, or convert what there is with --allow-partial.'
        )
    if not any(persons[split] for split in ('train', 'val', 'test')):
        raise InputError(
            f'{mat_file} holds no person of the training, validation or test set; get {RELEASE_FILE} again.'
        )

    files = {}
    for split in ('train', 'val', 'test'):
        if persons[split]:
            annotations = [_annotation(person) for person in persons[split]]
            if split == 'test':
                for annotation, person in zip(annotations, persons[split]):
                    annotation.update(image_index=person['image_index'], person_index=person['person_index'])
            files[f'mpii_{split}.json'] = json.dumps(annotations).encode()
    if persons['val']:
        files['mpii_gt_val.mat'] = _mat(_ground_truth(mat_file, persons['val']))
    if persons['test']:
        files[TEST_ANNOLIST] = _mat(dict(annolist=release['test_annolist']))
    with contextlib.ExitStack() as stack:  # no file takes its place before all are written
        for name, content in files.items():
            stack.enter_context(atomic_write(Path(out_dir) / 'annotations' / name)).write(content)
    return persons


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers, without a traceback from each


def _defect(path) -> str | None:
    """What is wrong with a picture, None if nothing is."""
    try:
        # not OpenCV, which takes a file that was cut off, fills up with gray and returns no error
        with Image.open(path) as picture:
            picture.load()
    except FileNotFoundError:
        return 'is missing'
    except Exception as error:  # the decoders raise anything on a broken file: an OSError, a SyntaxError ...
        return f'cannot be decoded ({error})'
    return None


def check_pictures(folder, images: Sequence[str], *, num_workers: int | None = None) -> dict[str, str]:
    """Decodes pictures, showing progress.

    Args:
        folder: Where they lie.
        images: Their names.
        num_workers: Processes; None for one a CPU core. Defaults to None.

    Returns:
        What is wrong, such as 'is missing', by the name of each picture that is missing or broken, in the given order.

    Raises:
        InputError: All are missing, so that the folder must be wrong, or ``num_workers`` is not positive.
    """
    if num_workers is not None and num_workers < 1:
        raise InputError(f'num_workers is {num_workers}; give a whole number of at least 1.')
    bar = ProgressBar(len(images), file=sys.stderr)
    step = max(len(images) // 100, 1)  # a log file gets a hundred updates, not thousands
    defects = {}
    with multiprocessing.Pool(num_workers, _start_worker) as pool:
        paths = [os.path.join(folder, image) for image in images]
        for done, (image, defect) in enumerate(zip(images, pool.imap(_defect, paths, chunksize=8)), 1):
            if defect:
                defects[image] = defect
            if done % step == 0:
                bar.update(step)
    sys.stderr.write('\n')
    if list(defects.values()) == ['is missing'] * len(images):
        raise InputError(
            f'none of the {len(images):,} pictures is in {folder}, not even {images[0]}; '
            'name the folder that they are in.'
        )
    return defects
