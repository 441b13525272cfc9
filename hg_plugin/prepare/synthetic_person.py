"""Pose a synthetic person at random and draw it.

The person is posed in 3D, projected without perspective and drawn from the farthest part to the nearest.

Two cues tell the person's left from right. A face and a bright shirt front are visible only if the person
faces the viewer, as in real images. The right limbs are dark and striped, the left ones light. Only the first
cue survives flip augmentation, which swaps the names of the joints but not the colors.

Positions are 0-based pixels with integers at pixel centers. Colors are BGR from 0 to 255.
"""

import colorsys
import math
from functools import partial

import cv2
import numpy as np

# fmt: off
# from, to, radius there and there as fractions of the stature
LIMBS = (
    ('rsho', 'relb', 0.036, 0.029), ('relb', 'rwri', 0.029, 0.020),
    ('rhip', 'rkne', 0.052, 0.038), ('rkne', 'rank', 0.036, 0.023),
    ('lsho', 'lelb', 0.036, 0.029), ('lelb', 'lwri', 0.029, 0.020),
    ('lhip', 'lkne', 0.052, 0.038), ('lkne', 'lank', 0.036, 0.023),
)
# direction from the middle of the head, radius in head lengths, height / width, gray level
FEATURES = (
    ((-0.4, 0, 0.9), 0.07, 1, 250), ((0.4, 0, 0.9), 0.07, 1, 250),  # eyes
    ((-0.4, 0, 0.9), 0.045, 1, 30), ((0.4, 0, 0.9), 0.045, 1, 30),  # pupils
    ((0, 0.55, 0.85), 0.1, 0.4, 50),  # mouth
)
# fmt: on
HEAD_AXES = np.array([0.38, 0.5, 0.38])  # half the width, height and depth, in lengths from neck to head top
CIRCLE = np.stack([np.cos(np.arange(24) * np.pi / 12), np.sin(np.arange(24) * np.pi / 12)], 1)
# unit vectors from the middle of the head: a cap around the direction of view, a little below it
FACE = np.array(
    [
        (np.sin(a) * np.cos(t), np.sin(a) * np.sin(t) * 0.95 + 0.22, np.cos(a))
        for a in np.radians([15, 35, 50, 62])
        for t in np.arange(16) * np.pi / 8
    ]
)
FACE /= np.linalg.norm(FACE, axis=1, keepdims=True)

PATCH = (32, 16)  # texels along and across a limb
KINDS = ('plain', 'stripes', 'checks', 'noise')
ALONG, ACROSS = np.ogrid[: PATCH[0], : PATCH[1]]
SHADE = np.repeat(1 - 0.3 * ((ACROSS + 0.5) / PATCH[1] * 2 - 1) ** 2, PATCH[0], 0)
SKINS = np.array([(150, 185, 235), (110, 150, 215), (80, 120, 180), (50, 75, 120)])
HAIRS = np.array([(25, 25, 30), (30, 50, 80), (70, 130, 180), (110, 110, 110)])


def rotation(axis, degrees):
    """Return the 3x3 rotation about axis 0 (to the right), 1 (down) or 2 (to the viewer)."""
    return cv2.Rodrigues(np.eye(3)[axis] * np.radians(degrees))[0]


def random_pose(rng, *, from_behind):
    """Draw a random pose, whose back faces the viewer with the probability ``from_behind``.

    Returns:
        tuple: ``(points, head)``. ``points`` maps the 16 MPII joints and rhand, lhand, rtoe, ltoe to (3,)
        arrays: x to the right, y down, z to the viewer, in units of the stature, with the pelvis at 0.
        ``head`` is the (3, 3) rotation whose columns point to the person's left, down the face and out of it.
    """
    lengths = rng.uniform((0.155, 0.03, 0.27, 0.235, 0.235), (0.18, 0.05, 0.32, 0.265, 0.265))
    head_length, neck_length, torso, thigh, shin = lengths / lengths.sum()
    shoulders, hips, upper_arm, forearm = rng.uniform(
        (0.19, 0.105, 0.155, 0.13), (0.245, 0.135, 0.185, 0.155)
    )
    active = rng.random() < 0.5

    yaw = np.clip(rng.normal(0, 30), -85, 85) + 180 * (rng.random() < from_behind)
    roll = rng.uniform(-60, 60) if rng.random() < 0.12 else rng.normal(0, 8)
    body = rotation(2, roll) @ rotation(1, yaw)
    lean = rng.uniform(-10, 40) if active else rng.normal(2, 4)
    bend = rng.normal(0, 10 if active else 4)
    chest = body @ rotation(0, -lean) @ rotation(2, bend) @ rotation(1, rng.normal(0, 10))
    nod, tilt, turn = rng.normal(0, (8, 9, 18))
    head = chest @ rotation(0, nod) @ rotation(2, tilt) @ rotation(1, turn)

    points = dict(pelv=np.zeros(3), thor=chest @ (0, -torso, 0))
    points['neck'] = points['thor'] + chest @ (0, -neck_length, 0)
    points['head'] = points['neck'] + head @ (0, -head_length, 0)

    gait = rng.choice(
        ['stand', 'walk', 'straddle', 'squat'], p=[0.2, 0.3, 0.25, 0.25] if active else [0.75, 0.15, 0.1, 0]
    )
    stride = rng.choice([-1, 1])
    squat = rng.uniform((35, 50), (80, 110))
    for side, left in (('r', -1), ('l', 1)):
        # degrees: the thigh forward and sideward from straight down, and how far the knee turns the shin back
        if gait == 'stand':
            forward, sideward, knee = rng.normal(3, 5), abs(rng.normal(3, 4)), abs(rng.normal(4, 6))
        elif gait == 'walk':
            forward = left * stride * rng.uniform(8, 35) + 5
            sideward, knee = abs(rng.normal(4, 5)), rng.uniform(3, 60)
        elif gait == 'straddle':
            forward, sideward, knee = rng.normal(8, 12), rng.uniform(10, 42), rng.uniform(0, 60)
        else:
            forward, knee = squat + rng.normal(0, 8, 2)
            sideward = rng.uniform(5, 40)
        aside = np.radians(sideward)
        upper_leg, lower_leg, foot = (
            body @ (left * np.sin(aside), np.cos(aside) * np.cos(ahead), np.cos(aside) * np.sin(ahead))
            for ahead in np.radians([forward, forward - knee, forward - knee + rng.uniform(50, 80)])
        )
        points[side + 'hip'] = body @ (left * hips / 2, 0, 0)
        points[side + 'kne'] = points[side + 'hip'] + thigh * upper_leg
        points[side + 'ank'] = points[side + 'kne'] + shin * lower_leg
        points[side + 'toe'] = points[side + 'ank'] + 0.085 * foot

        # degrees: the upper arm from straight down, in a vertical plane between sideward (0) and forward (90)
        reach = rng.choice(['hang', 'out', 'raise'], p=[0.2, 0.4, 0.4] if active else [0.7, 0.2, 0.1])
        away = {'hang': abs(rng.normal(10, 8)), 'out': rng.uniform(35, 110), 'raise': rng.uniform(110, 172)}
        away, plane = np.radians(away[reach]), np.radians(rng.uniform(-20, 75))
        elbow = np.radians(abs(rng.normal(15, 18)) if reach == 'hang' else rng.uniform(5, 125))
        upper = np.array([left * np.sin(away) * np.cos(plane), np.cos(away), np.sin(away) * np.sin(plane)])
        bent = rng.uniform((-1, -1, 0.1), (0.5, 0.4, 1)) * (left, 1, 1)  # mostly inward, up and forward
        bent -= upper * (bent @ upper)
        lower = np.cos(elbow) * upper + np.sin(elbow) * bent / np.linalg.norm(bent)
        points[side + 'sho'] = points['thor'] + chest @ (left * shoulders / 2, 0, 0)
        points[side + 'elb'] = points[side + 'sho'] + upper_arm * (chest @ upper)
        points[side + 'wri'] = points[side + 'elb'] + forearm * (chest @ lower)
        points[side + 'hand'] = points[side + 'wri'] + 0.035 * (chest @ lower)
    return points, head


def bgr(hue, saturation, value):
    """Convert a color from HSV, each 0 to 1."""
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))[::-1]


def texture(rng, color, kind):
    """Make a (32, 16, 3) patch of cloth, darker towards its long sides; ``kind`` is one of :data:`KINDS`."""
    cloth = SHADE
    if kind == 'stripes':
        cloth = SHADE * (1 - 0.5 * (ALONG // rng.integers(2, 6) % 2))
    elif kind == 'checks':
        period = rng.integers(2, 6)
        cloth = SHADE * (1 - 0.4 * ((ALONG // period + ACROSS // period) % 2))
    elif kind == 'noise':
        cloth = SHADE * (1 - 0.4 * rng.random(PATCH))
    return (cloth[..., None] * color).astype(np.uint8)


def random_cloth(rng, saturation=(0, 1), value=(0.15, 1), kind=None):
    """Make a patch of a random hue, with saturation and value in these ranges, random in kind by default."""
    color = bgr(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
    return texture(rng, color, kind or KINDS[rng.integers(4)])


def random_look(rng):
    """Make the patches of a person: skin, hair, shoe, torso, front and, by its pair of joints, each limb.

    The right limbs are dark and striped; the left ones are light and never striped.
    """
    skin = rng.uniform(0.85, 1.08) * SKINS[rng.integers(len(SKINS))]
    hair = rng.uniform(0.7, 1.2) * HAIRS[rng.integers(len(HAIRS))]
    look = dict(
        skin=texture(rng, skin, 'plain'),
        hair=texture(rng, hair, 'noise'),
        shoe=random_cloth(rng, (0, 0.6), (0.1, 0.9), 'plain'),
        torso=random_cloth(rng, (0.3, 0.9), (0.3, 0.7)),
        front=random_cloth(rng, (0, 0.2), (0.92, 1), 'plain'),
    )
    arm, leg = rng.random(2)
    for start, end, *_ in LIMBS:
        value = rng.uniform(0.25, 0.42) if start[0] == 'r' else rng.uniform(0.78, 0.98)
        color = bgr(arm if end[1:] in ('elb', 'wri') else leg, rng.uniform(0.3, 0.8), value)
        kind = 'stripes' if start[0] == 'r' else KINDS[3 * rng.integers(2)]
        look[start, end] = texture(rng, color, kind)
    return look


def outline(centers, radii):
    """Return the (n, 2) convex outline of k circles with these (k, 2) centers and (k,) radii."""
    circles = np.asarray(centers)[:, None] + np.asarray(radii)[:, None, None] * CIRCLE
    return cv2.convexHull(circles.reshape(-1, 2).astype(np.float32))[:, 0]


def paint(image, shape, patch, start, end, width, edge=0.6):
    """Fill a shape with a patch, anti-aliased to 1/16 pixel, and draw its edge.

    Args:
        image (np.ndarray): (h, w, 3) uint8, changed in place.
        shape (np.ndarray): (n, 2) corners of a convex polygon, which may lie outside the image.
        patch (np.ndarray): (32, 16, 3) uint8, from :func:`texture`.
        start, end (np.ndarray): (2,) points between which the patch lies lengthwise; its ends are extended.
        width (float): Pixels that the patch covers crosswise.
        edge (float): Brightness of the edge as a fraction of the patch's. Defaults to 0.6.
    """
    corners = np.rint(shape * 16).astype(np.int32)
    left, top, width_16, height_16 = cv2.boundingRect(corners)
    left, right = max(left // 16 - 1, 0), min((left + width_16) // 16 + 3, image.shape[1])
    top, bottom = max(top // 16 - 1, 0), min((top + height_16) // 16 + 3, image.shape[0])
    if right <= left or bottom <= top:
        return
    region = image[top:bottom, left:right]
    corners -= (16 * left, 16 * top)
    weight = np.zeros(region.shape[:2], np.uint8)
    cv2.fillConvexPoly(weight, corners, 255, cv2.LINE_AA, 4)
    weight = np.multiply(weight, 1 / 255, dtype=np.float32)

    (x, y), (dx, dy) = start.tolist(), (end - start).tolist()
    length = math.hypot(dx, dy)
    if length < 1e-3:  # seen end on, where any direction will do
        dx, dy, length = 0.0, width, width
    ux, uy = dx / PATCH[0], dy / PATCH[0]  # a texel along
    vx, vy = dy / length * width / PATCH[1], -dx / length * width / PATCH[1]  # a texel across
    middle = 0.5 - PATCH[1] / 2
    placed = np.array([[vx, ux, x - left + ux / 2 + vx * middle], [vy, uy, y - top + uy / 2 + vy * middle]])
    laid = cv2.warpAffine(patch, placed, region.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    region[:] = cv2.blendLinear(laid, region, weight, 1 - weight)
    cv2.polylines(region, [corners], True, [level * edge for level in cv2.mean(patch)[:3]], 1, cv2.LINE_AA, 4)


def head_ellipse(points, head):
    """Return the (2,) center of the head and a (2, 2) matrix E; center + E u with |u| = 1 is its outline."""
    axes = (head * HEAD_AXES * np.linalg.norm(points['head'] - points['neck']))[:2]
    return (points['head'] + points['neck'])[:2] / 2, np.linalg.cholesky(axes @ axes.T)


def draw_head(image, points, head, look):
    """Draw hair all over the head, and on it what is visible of the face."""
    center, ellipse = head_ellipse(points, head)
    length = np.linalg.norm(points['head'] - points['neck'])
    top, neck = points['head'][:2], points['neck'][:2]
    paint(image, center + CIRCLE @ ellipse.T, look['hair'], top, neck, length * 0.8)

    face = (FACE * HEAD_AXES * length) @ head.T
    face = face[face[:, 2] > 0][:, :2]
    if len(face) < 3:
        return
    paint(
        image, outline(center + face, np.full(len(face), 0.01 * length)), look['skin'], top, neck, length, 0.8
    )
    for direction, radius, height, gray in FEATURES:
        x, y, depth = (np.array(direction) * HEAD_AXES * length) @ head.T
        if depth > 0.08 * length:
            shape = center + (x, y) + CIRCLE * (radius * length, radius * height * length) @ head[:2, :2].T
            cv2.fillConvexPoly(image, np.rint(shape * 16).astype(np.int32), (gray,) * 3, cv2.LINE_AA, 4)


def draw_person(image, points, head, look, stature):
    """Draw a person over an image, in place.

    ``points``, in pixels, and ``head`` come from :func:`random_pose`, ``look`` from :func:`random_look`;
    ``stature`` is from head top to ankle when standing upright, in pixels.
    """
    parts = [(points['head'][2] + 0.03 * stature, partial(draw_head, image, points, head, look))]

    def hull(**radii):
        return outline([points[name][:2] for name in radii], [radius * stature for radius in radii.values()])

    def add(start, end, shape, patch, width, nearer):
        depth = (points[start][2] + points[end][2]) / 2 + nearer * stature
        axis = points[start][:2], points[end][:2]
        parts.append((depth, partial(paint, image, shape, patch, *axis, width * stature)))

    add('thor', 'pelv', hull(rsho=0.04, lsho=0.04, rhip=0.05, lhip=0.05), look['torso'], 0.3, 0)
    across, down = points['lsho'] - points['rsho'], points['pelv'] - points['thor']
    front = np.cross(across, down) / np.linalg.norm(np.cross(across, down))
    if front[2] > 0.1:
        corners = (
            points['thor'] + np.array([0.08, 0.08, 0.85, 0.85])[:, None] * down + 0.045 * stature * front
        )
        corners += np.array([-0.28, 0.28, 0.18, -0.18])[:, None] * across
        add('thor', 'pelv', corners[:, :2], look['front'], 0.2, 0.005)
    add('thor', 'neck', hull(thor=0.032, neck=0.032), look['skin'], 0.07, 0.01)
    for start, end, radius, end_radius in LIMBS:
        # a limb that touches the torso lies on it unless it is clearly behind
        add(start, end, hull(**{start: radius, end: end_radius}), look[start, end], 2 * radius, 0.02)
    for side in 'rl':
        wrist, hand, ankle, toe = (side + name for name in ('wri', 'hand', 'ank', 'toe'))
        add(wrist, hand, hull(**{wrist: 0.016, hand: 0.02}), look['skin'], 0.04, 0.015)
        add(ankle, toe, hull(**{ankle: 0.024, toe: 0.017}), look['shoe'], 0.05, 0.015)
    for _, draw in sorted(parts, key=lambda part: part[0]):
        draw()
