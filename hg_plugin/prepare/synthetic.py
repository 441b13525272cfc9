"""Make a dataset of synthetic persons in the MPII layout.

Any MPII config runs on it, so nothing has to be downloaded to try one. Positions are 0-based pixels with
integers at pixel centers until they are written.
"""

from functools import partial
from pathlib import Path

import cv2
import numpy as np

from hg_plugin.mpii_format import (
    JOINTS,
    PIXELS_A_SCALE,
    load_annotations,
    save_annotations,
    save_ground_truth,
)
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.progress import imap_with_progress

from .settings import claim_folder
from .synthetic_person import (
    CIRCLE,
    draw_person,
    head_ellipse,
    outline,
    paint,
    random_cloth,
    random_look,
    random_pose,
)

# Raise it when the same settings no longer give the same images, so that an old dataset is not reused.
VERSION = 2

# Validation images are numbered from here, so that neither split changes with the size of the other.
FIRST_VAL = 500_000_001

# Of shapes before the person, whose hidden joints stay annotated; that a part of the body may leave the
# image; of a second person behind the first, who is not annotated; that a person's back faces the viewer.
PROBABILITIES = dict(occluded=0.15, truncated=0.1, companions=0.05, from_behind=0.1)


def draw_shape(rng, image, center, size):
    """Draw a limb-like bar, an ellipse, a box or a polygon of about this size, in pixels, around a point."""
    turn = rng.uniform(0, np.pi)
    along = np.array([np.cos(turn), np.sin(turn)])
    across = np.array([-along[1], along[0]])
    length, width = size * rng.uniform(0.5, 1), size * rng.uniform(0.25, 0.8)
    kind = ('bar', 'bar', 'ellipse', 'box', 'polygon')[rng.integers(5)]
    if kind == 'bar':
        width *= 0.4
        shape = outline(center + np.outer((-0.5, 0.5), along * length), width * rng.uniform(0.3, 0.6, 2))
    elif kind == 'ellipse':
        shape = center + CIRCLE * (length / 2, width / 2) @ (along, across)
    elif kind == 'box':
        corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (length / 2, width / 2)
        shape = center + corners @ (along, across)
    else:
        shape = outline(center + rng.uniform(-size / 2, size / 2, (5, 2)), np.full(5, 1))
    paint(image, shape, random_cloth(rng), center - along * length / 2, center + along * length / 2, width)


def draw_background(rng, image_size):
    """Return a new (h, w, 3) image of blotches, shapes and bars like limbs, sometimes out of focus."""
    grid = rng.integers(20, 236, (*rng.integers(2, 6, 2), 3)).astype(np.uint8)
    image = cv2.resize(grid, image_size, interpolation=cv2.INTER_LINEAR)
    for _ in range(rng.integers(3, 10)):
        draw_shape(rng, image, rng.uniform((0, 0), image_size), min(image_size) * rng.uniform(0.1, 0.5))
    if rng.random() < 0.4:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.7, 2.5))
    return image


def place(rng, points, image_size, *, truncated):
    """Put a pose of :func:`random_pose` into an image; the head is always inside.

    Returns:
        tuple: ``(points, stature)`` in pixels.
    """
    size = np.array(image_size)
    joints = np.array([points[name][:2] for name in JOINTS])
    low, high = joints.min(0) - 0.04, joints.max(0) + 0.04
    stature = min(size) * rng.uniform(0.5, 1)
    if cut := rng.random() < truncated:
        stature *= rng.uniform(1, 1.5)
    stature = min(stature, *(size - 1) / (high - low) * (1.4 if cut else 1))
    room = size - 1 - stature * (high - low)
    origin = -stature * low + rng.uniform(0, 1, 2) * room
    if cut:
        origin += stature * (high - low) * rng.uniform((-0.4, 0), (0.4, 0.4))
    ends = origin + stature * joints[[JOINTS.index('neck'), JOINTS.index('head')]]
    margin = 0.06 * stature
    origin += np.maximum(margin - ends.min(0), 0) - np.maximum(ends.max(0) - (size - 1 - margin), 0)
    return dict(zip(points, np.array([*points.values()]) * stature + (*origin, 0))), stature


def draw_image(rng, image_size, **probabilities):
    """Draw an image of one annotated person.

    Returns:
        tuple: ``(image, person)``. ``image`` is (h, w, 3) uint8, BGR. ``person`` has ``joints`` (16, 2),
        ``visible`` (16,) bool, False for joints outside the image, ``center`` (2,), ``scale``, and
        ``head_box`` (2, 2), left top and right bottom.
    """
    shares = PROBABILITIES | probabilities
    image = draw_background(rng, image_size)
    pose, head = random_pose(rng, from_behind=shares['from_behind'])
    points, stature = place(rng, pose, image_size, truncated=shares['truncated'])
    joints = np.array([points[name][:2] for name in JOINTS])
    if rng.random() < shares['companions']:
        other, other_head = random_pose(rng, from_behind=shares['from_behind'])
        other_stature = stature * rng.uniform(0.7, 1)
        aside = points['pelv'] + (rng.choice([-1, 1]) * rng.uniform(0.45, 0.8) * stature, 0, 0)
        other = {name: point * other_stature + aside for name, point in other.items()}
        draw_person(image, other, other_head, random_look(rng), other_stature)
    draw_person(image, points, head, random_look(rng), stature)
    if rng.random() < shares['occluded']:
        for _ in range(rng.integers(1, 4)):
            middle = joints[rng.integers(16)] + rng.normal(0, 0.05, 2) * stature
            draw_shape(rng, image, middle, stature * rng.uniform(0.1, 0.35))
    noise = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
    contrast, strength = rng.uniform(0.75, 1.1), rng.uniform(0.02, 0.12)
    image = cv2.addWeighted(image, contrast, noise, strength, rng.uniform(-15, 15) - 128 * strength)

    visible = ((joints >= 0) & (joints <= np.array(image_size) - 1)).all(1)
    # MPII's centers lie above the middle of the joints by 3 % of the stature, because loaders lower them
    center = (joints[visible].min(0) + joints[visible].max(0)) / 2 - (0, 0.03 * stature)
    middle, ellipse = head_ellipse(points, head)
    half = np.linalg.norm(ellipse, axis=1)
    head_box = np.stack([middle - half, middle + half])
    scale = stature / PIXELS_A_SCALE
    return image, dict(joints=joints, visible=visible, center=center, scale=scale, head_box=head_box)


def _write_image(folder, seed, image_size, options, index):
    image, person = draw_image(np.random.default_rng([seed, index]), image_size, **options)
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    person['image'] = f'{index:09d}.jpg'
    with atomic_write(folder / 'images' / person['image']) as file:
        file.write(data.tobytes())
    return person


def make_synthetic(
    out_dir, *, num_train=2000, num_val=200, image_size=(320, 240), seed=0, num_workers=None, **probabilities
):
    """Make a dataset of synthetic persons that any MPII config can use as its ``data_root``.

    Write ``images/000000001.jpg`` ... for training and ``images/500000001.jpg`` ... for validation, and to
    ``annotations/`` the settings, ``synthetic.json``, and last ``mpii_train.json``, ``mpii_val.json`` and
    ``mpii_gt_val.mat``. An image depends only on its number, the seed, the size, the probabilities and the
    versions of NumPy and OpenCV, but not on the number of images or workers.

    Args:
        out_dir (str | Path): Folder to make, or an empty one, or one that was interrupted.
        num_train, num_val (int): Images in each split, at least 1. Defaults to 2000 and 200.
        image_size (tuple): (width, height) in pixels, at least 64 each. Defaults to (320, 240).
        seed (int): Not negative. Defaults to 0.
        num_workers (int | None): Number of processes. Defaults to None, one per CPU core.
        **probabilities (float): See :data:`PROBABILITIES`.

    Returns:
        bool: True if the dataset was made, False if it existed, complete and with the same settings.

    Raises:
        InputError: An argument is out of range, or ``out_dir`` holds something else or cannot be written.
    """
    if min(num_train, num_val) < 1 or min(image_size) < 64:
        raise InputError(
            f'{num_train} training and {num_val} validation images of {image_size} pixels: give at least one '
            'image of each, of at least 64x64 pixels.'
        )
    probabilities = PROBABILITIES | probabilities
    # the key picture_size stays as it was, so that existing datasets are reused
    settings = dict(version=VERSION, num_train=num_train, num_val=num_val, picture_size=list(image_size))
    settings |= dict(seed=seed, **probabilities)
    folder = Path(out_dir)
    claim_folder(folder, 'annotations/synthetic.json', settings)
    truth = folder / 'annotations/mpii_gt_val.mat'
    if truth.is_file():  # it is written last
        return False
    indices = [*range(1, 1 + num_train), *range(FIRST_VAL, FIRST_VAL + num_val)]
    draw = partial(_write_image, folder, seed, image_size, probabilities)
    persons = list(imap_with_progress(draw, indices, num_workers, 'images'))
    for split, part in (('train', persons[:num_train]), ('val', persons[num_train:])):
        columns = {key: np.array([person[key] for person in part]) for key in part[0]}
        head_boxes = columns.pop('head_box')
        save_annotations(folder / f'annotations/mpii_{split}.json', columns)
    # rounded, so that both files have the same joints
    written = load_annotations(folder / 'annotations/mpii_val.json')
    save_ground_truth(truth, written['joints'], written['visible'], head_boxes)
    return True
