"""Synthetic pictures of persons in the MPII layout, to run any MPII config where the real pictures are not at hand.

An articulated figure is posed in 3D, projected without perspective and drawn over clutter. Left and right, which are
the person's own, can be told apart in two ways. As in real pictures, one sees whether a person faces the viewer: only
then there are a face and a bright shirt front. This survives mirroring. And the right limbs are dark and striped, the
left ones light: that helps without flip augmentation only, which swaps the names of the sides and not their colours.

All positions here are 0-based pixels, with whole numbers at pixel centres, until :func:`make_synthetic` writes them.
"""

import colorsys
import functools
import json
import math
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
from mmengine.utils import ProgressBar
from scipy.io import savemat

from hg_plugin.mpii_format import JOINTS
from hg_plugin.utils.errors import InputError

# Raise it when the same settings no longer give the same pictures, so that old sets are not taken for new ones.
VERSION = 2

# Validation pictures are numbered from here, so that neither split changes with the size of the other.
FIRST_VAL = 500_000_001

# from, to, radius there and there as fractions of the stature
LIMBS = (
    ('rsho', 'relb', 0.036, 0.029),
    ('relb', 'rwri', 0.029, 0.020),
    ('rhip', 'rkne', 0.052, 0.038),
    ('rkne', 'rank', 0.036, 0.023),
    ('lsho', 'lelb', 0.036, 0.029),
    ('lelb', 'lwri', 0.029, 0.020),
    ('lhip', 'lkne', 0.052, 0.038),
    ('lkne', 'lank', 0.036, 0.023),
)
HEAD_AXES = np.array(
    [0.38, 0.5, 0.38]
)  # half the width, height and depth of a head, in lengths from neck to head top
CIRCLE = np.stack([np.cos(np.arange(24) * np.pi / 12), np.sin(np.arange(24) * np.pi / 12)], 1)
PATCH = (32, 16)  # texels along and across a limb
KINDS = ('plain', 'stripes', 'checks', 'noise')
ALONG, ACROSS = np.ogrid[: PATCH[0], : PATCH[1]]
SHADE = np.repeat(1 - 0.3 * ((ACROSS + 0.5) / PATCH[1] * 2 - 1) ** 2, PATCH[0], 0)
SKINS = np.array(
    [(150, 185, 235), (110, 150, 215), (80, 120, 180), (50, 75, 120)]
)  # BGR, as all colours here
HAIRS = np.array([(25, 25, 30), (30, 50, 80), (70, 130, 180), (110, 110, 110)])
# unit vectors from the middle of the head to its face: a cap around the direction of view, a little below it
FACE = np.array(
    [
        (np.sin(a) * np.cos(t), np.sin(a) * np.sin(t) * 0.95 + 0.22, np.cos(a))
        for a in np.radians([15, 35, 50, 62])
        for t in np.arange(16) * np.pi / 8
    ]
)
FACE /= np.linalg.norm(FACE, axis=1, keepdims=True)


def rotation(axis, degrees):
    """The 3x3 rotation about axis 0 (to the right), 1 (down) or 2 (to the viewer)."""
    return cv2.Rodrigues(np.eye(3)[axis] * np.radians(degrees))[0]


def random_pose(rng, *, from_behind):
    """A person's points in 3D, in units of the stature: x to the right, y down, z to the viewer, the pelvis at 0.

    Args:
        rng (np.random.Generator): Source of all randomness.
        from_behind (float): Probability that the person turns the back to the viewer.

    Returns:
        tuple: (points, head). ``points`` maps the 16 MPII joints and rhand, lhand, rtoe, ltoe to (3, ) arrays, ``head``
        is the (3, 3) rotation whose columns point to the person's left, down the face and out of it.
    """
    lengths = rng.uniform((0.155, 0.03, 0.27, 0.235, 0.235), (0.18, 0.05, 0.32, 0.265, 0.265))
    head_length, neck_length, torso, thigh, shin = (
        lengths / lengths.sum()
    )  # of the way from head top to ankle
    shoulders, hips, upper_arm, forearm = rng.uniform(
        (0.19, 0.105, 0.155, 0.13), (0.245, 0.135, 0.185, 0.155)
    )
    active = rng.random() < 0.5

    yaw = np.clip(rng.normal(0, 30), -85, 85) + 180 * (rng.random() < from_behind)
    roll = rng.uniform(-60, 60) if rng.random() < 0.12 else rng.normal(0, 8)
    body = rotation(2, roll) @ rotation(1, yaw)
    lean = rng.uniform(-10, 40) if active else rng.normal(2, 4)
    chest = (
        body
        @ rotation(0, -lean)
        @ rotation(2, rng.normal(0, 10 if active else 4))
        @ rotation(1, rng.normal(0, 10))
    )
    head = (
        chest @ rotation(0, rng.normal(0, 8)) @ rotation(2, rng.normal(0, 9)) @ rotation(1, rng.normal(0, 18))
    )

    points = dict(pelv=np.zeros(3), thor=chest @ (0, -torso, 0))
    points['neck'] = points['thor'] + chest @ (0, -neck_length, 0)
    points['head'] = points['neck'] + head @ (0, -head_length, 0)

    gait = rng.choice(
        ['stand', 'walk', 'straddle', 'squat'], p=[0.2, 0.3, 0.25, 0.25] if active else [0.75, 0.15, 0.1, 0]
    )
    stride = rng.choice([-1, 1])
    squat = rng.uniform((35, 50), (80, 110))
    for side, left in (('r', -1), ('l', 1)):
        # thigh: forwards and sidewards from straight down; knee: how far the shin turns back from there, all in degrees
        if gait == 'stand':
            forwards, sidewards, knee = rng.normal(3, 5), abs(rng.normal(3, 4)), abs(rng.normal(4, 6))
        elif gait == 'walk':
            forwards = left * stride * rng.uniform(8, 35) + 5
            sidewards, knee = abs(rng.normal(4, 5)), rng.uniform(3, 60)
        elif gait == 'straddle':
            forwards, sidewards, knee = rng.normal(8, 12), rng.uniform(10, 42), rng.uniform(0, 60)
        else:
            forwards, knee = squat + rng.normal(0, 8, 2)
            sidewards = rng.uniform(5, 40)

        def leg(forwards):
            ahead, aside = np.radians(forwards), np.radians(sidewards)
            return body @ (left * np.sin(aside), np.cos(aside) * np.cos(ahead), np.cos(aside) * np.sin(ahead))

        points[side + 'hip'] = body @ (left * hips / 2, 0, 0)
        points[side + 'kne'] = points[side + 'hip'] + thigh * leg(forwards)
        points[side + 'ank'] = points[side + 'kne'] + shin * leg(forwards - knee)
        points[side + 'toe'] = points[side + 'ank'] + 0.085 * leg(forwards - knee + rng.uniform(50, 80))

        # arm: away from straight down, in a vertical plane between sidewards (0) and forwards (90)
        reach = rng.choice(['hang', 'out', 'raise'], p=[0.2, 0.4, 0.4] if active else [0.7, 0.2, 0.1])
        away = np.radians(
            {'hang': abs(rng.normal(10, 8)), 'out': rng.uniform(35, 110), 'raise': rng.uniform(110, 172)}[
                reach
            ]
        )
        plane = np.radians(rng.uniform(-20, 75))
        elbow = np.radians(abs(rng.normal(15, 18)) if reach == 'hang' else rng.uniform(5, 125))
        upper = np.array([left * np.sin(away) * np.cos(plane), np.cos(away), np.sin(away) * np.sin(plane)])
        bent = rng.uniform((-1, -1, 0.1), (0.5, 0.4, 1)) * (left, 1, 1)  # rather inwards, up and forwards
        bent -= upper * (bent @ upper)
        lower = np.cos(elbow) * upper + np.sin(elbow) * bent / np.linalg.norm(bent)
        points[side + 'sho'] = points['thor'] + chest @ (left * shoulders / 2, 0, 0)
        points[side + 'elb'] = points[side + 'sho'] + upper_arm * (chest @ upper)
        points[side + 'wri'] = points[side + 'elb'] + forearm * (chest @ lower)
        points[side + 'hand'] = points[side + 'wri'] + 0.035 * (chest @ lower)
    return points, head


def colour(rng, saturation, value):
    """A random BGR colour with saturation and value (brightness), 0 to 1, from these (low, high) ranges."""
    return (
        255 * np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value)))[::-1]
    )


def texture(rng, colour, kind):
    """A (32, 16, 3) patch of cloth in a BGR colour, darker towards its long sides; kind: one of KINDS."""
    cloth = SHADE
    if kind == 'stripes':
        cloth = SHADE * (1 - 0.5 * (ALONG // rng.integers(2, 6) % 2))
    elif kind == 'checks':
        period = rng.integers(2, 6)
        cloth = SHADE * (1 - 0.4 * ((ALONG // period + ACROSS // period) % 2))
    elif kind == 'noise':
        cloth = SHADE * (1 - 0.4 * rng.random(PATCH))
    return (cloth[..., None] * colour).astype(np.uint8)


def random_cloth(rng, saturation=(0, 1), value=(0.15, 1)):
    """A patch of any colour and kind."""
    return texture(rng, colour(rng, saturation, value), KINDS[rng.integers(4)])


def random_look(rng):
    """Patches by what they cover: each pair of joints in :data:`LIMBS`, torso, front (of it), skin, hair and shoe.

    The right limbs are dark and striped and the left ones light and never striped, whatever the colour.
    """
    skin = rng.uniform(0.85, 1.08) * SKINS[rng.integers(len(SKINS))]
    hair = rng.uniform(0.7, 1.2) * HAIRS[rng.integers(len(HAIRS))]
    look = dict(
        skin=texture(rng, skin, 'plain'),
        hair=texture(rng, hair, 'noise'),
        shoe=texture(rng, colour(rng, (0, 0.6), (0.1, 0.9)), 'plain'),
        torso=random_cloth(rng, (0.3, 0.9), (0.3, 0.7)),
        front=texture(rng, colour(rng, (0, 0.2), (0.92, 1)), 'plain'),
    )
    hues = dict(arm=rng.random(), leg=rng.random())
    for start, end, *_ in LIMBS:
        right = start[0] == 'r'
        hue = hues['arm' if end[1:] in ('elb', 'wri') else 'leg']
        value = rng.uniform(0.25, 0.42) if right else rng.uniform(0.78, 0.98)
        cloth = 255 * np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.3, 0.8), value))[::-1]
        look[start, end] = texture(rng, cloth, 'stripes' if right else KINDS[3 * rng.integers(2)])
    return look


def outline(centres, radii):
    """The (n, 2) convex outline around circles with these (k, 2) centres and k radii."""
    circles = np.asarray(centres)[:, None] + np.asarray(radii)[:, None, None] * CIRCLE
    return cv2.convexHull(circles.reshape(-1, 2).astype(np.float32))[:, 0]


def paint(picture, shape, patch, start, end, width, edge=0.6):
    """Fills a shape with a patch, anti-aliased to 1/16 pixel, and draws its edge.

    Args:
        picture (np.ndarray): (h, w, 3) uint8, changed in place.
        shape (np.ndarray): (n, 2) corners of a convex polygon, anywhere.
        patch (np.ndarray): What :func:`texture` returns.
        start, end (np.ndarray): (2, ) points between which the patch lies lengthwise; its ends go on beyond.
        width (float): Pixels that the patch covers crosswise.
        edge (float): Brightness of the edge as a fraction of the patch's. Default: 0.6.
    """
    corners = np.rint(shape * 16).astype(np.int32)
    left, top, width_16, height_16 = cv2.boundingRect(corners)
    left, right = max(left // 16 - 1, 0), min((left + width_16) // 16 + 3, picture.shape[1])
    top, bottom = max(top // 16 - 1, 0), min((top + height_16) // 16 + 3, picture.shape[0])
    if right <= left or bottom <= top:
        return
    region = picture[top:bottom, left:right]
    corners -= (16 * left, 16 * top)
    weight = np.zeros(region.shape[:2], np.uint8)
    cv2.fillConvexPoly(weight, corners, 255, cv2.LINE_AA, 4)
    weight = np.multiply(weight, 1 / 255, dtype=np.float32)

    (x, y), (dx, dy) = start.tolist(), (end - start).tolist()
    length = math.hypot(dx, dy)
    if length < 1e-3:  # seen end on; any direction will do
        dx, dy, length = 0.0, width, width
    ux, uy = dx / PATCH[0], dy / PATCH[0]  # a texel along
    vx, vy = dy / length * width / PATCH[1], -dx / length * width / PATCH[1]  # a texel across
    middle = 0.5 - PATCH[1] / 2
    placed = np.array([[vx, ux, x - left + ux / 2 + vx * middle], [vy, uy, y - top + uy / 2 + vy * middle]])
    laid = cv2.warpAffine(patch, placed, region.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
    region[:] = cv2.blendLinear(laid, region, weight, 1 - weight)
    cv2.polylines(region, [corners], True, [level * edge for level in cv2.mean(patch)[:3]], 1, cv2.LINE_AA, 4)


def head_ellipse(points, head):
    """The (2, ) centre of the head in the picture and the (2, 2) matrix E: centre + E u, |u| = 1, is its outline."""
    length = np.linalg.norm(points['head'] - points['neck'])
    axes = (head * HEAD_AXES * length)[:2]
    return (points['head'] + points['neck'])[:2] / 2, np.linalg.cholesky(axes @ axes.T)


def draw_head(picture, points, head, look):
    """Draws hair all over the head, and on it as much of the face as is to be seen."""
    centre, ellipse = head_ellipse(points, head)
    length = np.linalg.norm(points['head'] - points['neck'])
    top, neck = points['head'][:2], points['neck'][:2]
    paint(picture, centre + CIRCLE @ ellipse.T, look['hair'], top, neck, length * 0.8)

    def on_head(directions):
        return (directions * HEAD_AXES * length) @ head.T

    face = on_head(FACE)
    face = face[face[:, 2] > 0][:, :2]
    if len(face) < 3:
        return
    paint(
        picture,
        outline(centre + face, np.full(len(face), 0.01 * length)),
        look['skin'],
        top,
        neck,
        length,
        edge=0.8,
    )
    for direction, radius, brightness in (
        ((-0.4, 0, 0.9), 0.07, 250),
        ((0.4, 0, 0.9), 0.07, 250),
        ((-0.4, 0, 0.9), 0.045, 30),
        ((0.4, 0, 0.9), 0.045, 30),
        ((0, 0.55, 0.85), 0.1, 50),
    ):
        x, y, depth = on_head(np.array(direction))
        if depth > 0.08 * length:
            squash = 0.4 if direction[0] == 0 else 1  # the mouth is wide and low
            shape = centre + (x, y) + CIRCLE * (radius * length, radius * squash * length) @ head[:2, :2].T
            cv2.fillConvexPoly(
                picture, np.rint(shape * 16).astype(np.int32), (brightness,) * 3, cv2.LINE_AA, 4
            )


def draw_person(picture, points, head, look, stature):
    """Draws a person over a picture, from the farthest part to the nearest.

    Args:
        picture (np.ndarray): (h, w, 3) uint8, changed in place.
        points (dict): As from :func:`random_pose`, but in pixels.
        head (np.ndarray): As from :func:`random_pose`.
        look (dict): As from :func:`random_look`.
        stature (float): Pixels from head top to ankle when standing upright.
    """
    parts = []

    def add(start, end, circles, patch, width, nearer):
        shape = outline(
            [points[name][:2] for name in circles], [radius * stature for radius in circles.values()]
        )
        draw = functools.partial(
            paint, picture, shape, patch, points[start][:2], points[end][:2], width * stature
        )
        parts.append(((points[start][2] + points[end][2]) / 2 + nearer * stature, draw))

    add('thor', 'pelv', dict(rsho=0.04, lsho=0.04, rhip=0.05, lhip=0.05), look['torso'], 0.3, 0)
    across, down = points['lsho'] - points['rsho'], points['pelv'] - points['thor']
    front = np.cross(across, down) / np.linalg.norm(np.cross(across, down))
    if front[2] > 0.1:
        corners = (
            points['thor'] + np.array([0.08, 0.08, 0.85, 0.85])[:, None] * down + 0.045 * stature * front
        )
        corners += np.array([-0.28, 0.28, 0.18, -0.18])[:, None] * across
        parts.append(
            (
                (points['thor'] + points['pelv'])[2] / 2 + 0.005 * stature,
                functools.partial(
                    paint,
                    picture,
                    corners[:, :2],
                    look['front'],
                    points['thor'][:2],
                    points['pelv'][:2],
                    0.2 * stature,
                ),
            )
        )
    add('thor', 'neck', dict(thor=0.032, neck=0.032), look['skin'], 0.07, 0.01)
    for start, end, radius, end_radius in LIMBS:
        # a limb that touches the torso lies on it unless it is clearly behind
        add(start, end, {start: radius, end: end_radius}, look[start, end], 2 * radius, 0.02)
    for wrist, hand, ankle, toe in (('rwri', 'rhand', 'rank', 'rtoe'), ('lwri', 'lhand', 'lank', 'ltoe')):
        add(wrist, hand, {wrist: 0.016, hand: 0.02}, look['skin'], 0.04, 0.015)
        add(ankle, toe, {ankle: 0.024, toe: 0.017}, look['shoe'], 0.05, 0.015)
    parts.append(
        (points['head'][2] + 0.03 * stature, functools.partial(draw_head, picture, points, head, look))
    )
    for _, draw in sorted(parts, key=lambda part: part[0]):
        draw()


def draw_shape(rng, picture, centre, size):
    """Draws a limb-like bar, an ellipse, a box or a polygon of about this size (pixels) around a point."""
    turn = rng.uniform(0, np.pi)
    along = np.array([np.cos(turn), np.sin(turn)])
    across = np.array([-along[1], along[0]])
    length, width = size * rng.uniform(0.5, 1), size * rng.uniform(0.25, 0.8)
    kind = ('bar', 'bar', 'ellipse', 'box', 'polygon')[rng.integers(5)]
    if kind == 'bar':
        width *= 0.4
        shape = outline(centre + np.outer((-0.5, 0.5), along * length), width * rng.uniform(0.3, 0.6, 2))
    elif kind == 'ellipse':
        shape = centre + CIRCLE * (length / 2, width / 2) @ (along, across)
    elif kind == 'box':
        shape = centre + np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * (length / 2, width / 2) @ (
            along,
            across,
        )
    else:
        shape = outline(centre + rng.uniform(-size / 2, size / 2, (5, 2)), np.full(5, 1))
    paint(picture, shape, random_cloth(rng), centre - along * length / 2, centre + along * length / 2, width)


def draw_background(rng, picture_size):
    """A new (h, w, 3) picture of clutter: blotches, shapes and bars that could be limbs, sometimes out of focus."""
    width, height = picture_size
    grid = rng.integers(20, 236, (*rng.integers(2, 6, 2), 3)).astype(np.uint8)
    picture = cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
    for _ in range(rng.integers(3, 10)):
        draw_shape(
            rng, picture, rng.uniform((0, 0), (width, height)), min(width, height) * rng.uniform(0.1, 0.5)
        )
    if rng.random() < 0.4:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.7, 2.5))
    return picture


def place(rng, points, picture_size, *, truncated):
    """Puts a pose into a picture, head always inside.

    Args:
        rng (np.random.Generator): Source of all randomness.
        points (dict): As from :func:`random_pose`.
        picture_size (tuple): (width, height) in pixels.
        truncated (float): Probability that a part of the body may leave the picture.

    Returns:
        tuple: (points, stature), in pixels.
    """
    size = np.array(picture_size)
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


def draw_picture(rng, picture_size, *, occluded=0.15, truncated=0.1, companions=0.05, from_behind=0.1):
    """Draws a picture of one annotated person.

    Args:
        rng (np.random.Generator): Source of all randomness.
        picture_size (tuple): (width, height) in pixels.
        occluded (float): Probability of shapes in front of the person; hidden joints stay annotated. Default: 0.15.
        truncated (float): Probability that a part of the body may leave the picture. Default: 0.1.
        companions (float): Probability of a second, unannotated person behind or beside the first. Default: 0.05.
        from_behind (float): Probability that a person turns the back to the viewer. Default: 0.1.

    Returns:
        tuple: (picture, person). ``picture`` is (h, w, 3) uint8, BGR. ``person`` has ``joints`` (16, 2) in MPII's
        order, ``visible`` (16, ) bool, False for joints out of the picture, ``center`` (2, ), ``head_box`` (2, 2), left
        top and right bottom, all in 0-based pixels, and ``scale``, the stature / 200 px.
    """
    width, height = picture_size
    picture = draw_background(rng, picture_size)
    pose, head = random_pose(rng, from_behind=from_behind)
    points, stature = place(rng, pose, picture_size, truncated=truncated)
    joints = np.array([points[name][:2] for name in JOINTS])
    if rng.random() < companions:
        other, other_head = random_pose(rng, from_behind=from_behind)
        other_stature = stature * rng.uniform(0.7, 1)
        aside = points['pelv'] + (rng.choice([-1, 1]) * rng.uniform(0.45, 0.8) * stature, 0, 0)
        other = {name: point * other_stature + aside for name, point in other.items()}
        draw_person(picture, other, other_head, random_look(rng), other_stature)
    draw_person(picture, points, head, random_look(rng), stature)
    if rng.random() < occluded:
        for _ in range(rng.integers(1, 4)):
            middle = joints[rng.integers(16)] + rng.normal(0, 0.05, 2) * stature
            draw_shape(rng, picture, middle, stature * rng.uniform(0.1, 0.35))
    noise = np.frombuffer(rng.bytes(picture.size), np.uint8).reshape(picture.shape)
    contrast, strength = rng.uniform(0.75, 1.1), rng.uniform(0.02, 0.12)
    picture = cv2.addWeighted(picture, contrast, noise, strength, rng.uniform(-15, 15) - 128 * strength)

    visible = ((joints >= 0) & (joints <= (width - 1, height - 1))).all(1)
    # MPII's centres lie above the middle of the joints by 3 % of the stature, because loaders move them down again
    center = (joints[visible].min(0) + joints[visible].max(0)) / 2 - (0, 0.03 * stature)
    middle, ellipse = head_ellipse(points, head)
    half = np.linalg.norm(ellipse, axis=1)
    return picture, dict(
        joints=joints,
        visible=visible,
        center=center,
        scale=stature / 200,
        head_box=np.stack([middle - half, middle + half]),
    )


def _write_picture(index, *, folder, seed, picture_size, options):
    """Draws picture ``index`` of a set, writes it and returns its person."""
    picture, person = draw_picture(np.random.default_rng([seed, index]), picture_size, **options)
    encoded, data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert encoded
    (folder / _name(index)).write_bytes(data)
    return person


def _name(index):
    return f'{index:09d}.jpg'


def _start_worker():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers, without a traceback from each
    cv2.setNumThreads(0)  # there is a process for every core already


def _draw_set(indices, num_workers, draw):
    """Calls ``draw`` for every index in ``num_workers`` processes, showing progress; returns the results in order."""
    bar = ProgressBar(len(indices), file=sys.stderr)
    step = max(len(indices) // 100, 1)  # a log file gets a hundred updates, not thousands
    persons = []

    def collect(results):
        for person in results:
            persons.append(person)
            if len(persons) % step == 0:
                bar.update(step)

    if num_workers == 1:
        collect(map(draw, indices))
    else:
        with multiprocessing.Pool(num_workers, _start_worker) as pool:
            collect(pool.imap(draw, indices, chunksize=8))
    sys.stderr.write('\n')
    return persons


def _write_annotations(folder, split, indices, persons):
    """Writes mpii_{split}.json, in MPII's 1-based pixels; a joint out of the picture is at -1, -1, as in MPII."""
    annotations = [
        dict(
            image=_name(index),
            center=(person['center'] + 1).round(3).tolist(),
            scale=round(float(person['scale']), 5),
            joints=np.where(person['visible'][:, None], person['joints'] + 1, -1.0).round(3).tolist(),
            joints_vis=person['visible'].astype(int).tolist(),
        )
        for index, person in zip(indices, persons)
    ]
    (folder / f'mpii_{split}.json').write_text(json.dumps(annotations))


def _write_truth(path, persons):
    """Writes mpii_gt_val.mat, in MPII's 1-based pixels; a joint out of the picture is at 0, 0, as in MPII."""
    visible = np.stack([person['visible'] for person in persons], 1)  # (16, N)
    joints = np.stack([person['joints'] + 1 for person in persons], 2).round(3)  # (16, 2, N)
    savemat(
        path,
        dict(
            headboxes_src=np.stack([person['head_box'] + 1 for person in persons], 2),
            pos_gt_src=np.where(visible[:, None], joints, 0.0),
            jnt_missing=(~visible).astype(np.uint8),
            dataset_joints=np.array([JOINTS], dtype=object),
        ),
    )


def _files(settings):
    """The files of a set with these settings, relative to its folder, the one that proves it complete last."""
    indices = [*range(1, 1 + settings['num_train']), *range(FIRST_VAL, FIRST_VAL + settings['num_val'])]
    return [
        *(f'images/{_name(index)}' for index in indices),
        'annotations/mpii_train.json',
        'annotations/mpii_val.json',
        'annotations/mpii_gt_val.mat',
        'annotations/synthetic.json',
    ]


def _settings_at(folder):
    """The settings of the complete set in a folder, None where there is none."""
    try:
        settings = json.loads((folder / 'annotations' / 'synthetic.json').read_text())
        _files(settings)
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    return settings


def make_synthetic(
    out_dir,
    *,
    num_train=2000,
    num_val=200,
    picture_size=(320, 240),
    seed=0,
    num_workers=None,
    force=False,
    occluded=0.15,
    truncated=0.1,
    companions=0.05,
    from_behind=0.1,
):
    """Makes a data set of synthetic persons that every MPII config can use as its ``data_root``.

    It writes images/000000001.jpg ... (training) and images/500000001.jpg ... (validation), in annotations/
    mpii_train.json, mpii_val.json and mpii_gt_val.mat as MPII has them, and last synthetic.json with the settings.
    Given the same NumPy and OpenCV, a picture depends on its number, the seed, the size and the options below only: not
    on the number of workers, nor on how many pictures there are.

    Args:
        out_dir (str | Path): Folder to make, or an empty one.
        num_train, num_val (int): Pictures in each split, at least 1. Defaults: 2000, 200.
        picture_size (tuple): (width, height) in pixels, at least 64 each. Default: (320, 240).
        seed (int): Not negative. Default: 0.
        num_workers (int | None): Processes that draw; None for one a CPU core. Default: None.
        force (bool): Whether to write over what is in ``out_dir``. Files of other names are kept, except for the
            pictures of a former synthetic set. Default: False.
        occluded, truncated, companions, from_behind (float): Probabilities, as for :func:`draw_picture`.

    Returns:
        bool: True if the set was made, False if it was there already, complete and with the same settings.

    Raises:
        InputError: An argument is out of range, ``out_dir`` holds something else, or cannot be written.
    """
    if num_workers is None:
        num_workers = os.cpu_count() or 1
    if np.shape(picture_size) != (2,):
        raise InputError(f'picture_size is {picture_size!r}; give (width, height) in pixels.')
    for name, value, least in (
        ('num_train', num_train, 1),
        ('num_val', num_val, 1),
        ('seed', seed, 0),
        ('num_workers', num_workers, 1),
        ('the width in picture_size', picture_size[0], 64),
        ('the height in picture_size', picture_size[1], 64),
    ):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise InputError(f'{name} is {value!r}; give a whole number of at least {least}.')
    options = {
        name: float(value)
        for name, value in dict(
            occluded=occluded, truncated=truncated, companions=companions, from_behind=from_behind
        ).items()
    }
    for name, value in options.items():
        if not 0 <= value <= 1:
            raise InputError(f'{name} is {value!r}; give a probability between 0 and 1.')
    settings = dict(
        version=VERSION,
        num_train=int(num_train),
        num_val=int(num_val),
        picture_size=[int(length) for length in picture_size],
        seed=int(seed),
        **options,
    )

    out_dir = Path(out_dir)
    partial = out_dir / '.partial'
    try:
        former = _settings_at(out_dir)
        if not force and out_dir.exists():
            if former == settings:
                missing = [name for name in _files(settings) if not (out_dir / name).exists()]
                if not missing:
                    return False
                raise InputError(
                    f'{out_dir} lacks {len(missing)} files of its synthetic set, the first being '
                    f'{missing[0]}; make it again with force.'
                )
            if former is not None:
                differing = [
                    f'{name} {former.get(name)!r} instead of {value!r}'
                    for name, value in settings.items()
                    if former.get(name) != value
                ]
                raise InputError(
                    f'{out_dir} holds a synthetic set with other settings ({", ".join(differing)}); '
                    'choose another folder, or write over it with force.'
                )
            foreign = sorted(entry.name for entry in out_dir.iterdir() if entry != partial)
            if foreign:
                raise InputError(
                    f'{out_dir} holds files that are no complete synthetic set, such as {foreign[0]}; '
                    'choose another folder, or write into it with force.'
                )
        new = not out_dir.exists()
        if partial.exists():  # from a run that was killed
            shutil.rmtree(partial)
        (partial / 'images').mkdir(parents=True)
        (partial / 'annotations').mkdir()
        try:
            train, val = range(1, 1 + num_train), range(FIRST_VAL, FIRST_VAL + num_val)
            draw = functools.partial(
                _write_picture,
                folder=partial / 'images',
                seed=seed,
                picture_size=picture_size,
                options=options,
            )
            persons = _draw_set([*train, *val], num_workers, draw)
            _write_annotations(partial / 'annotations', 'train', train, persons[:num_train])
            _write_annotations(partial / 'annotations', 'val', val, persons[num_train:])
            _write_truth(partial / 'annotations' / 'mpii_gt_val.mat', persons[num_train:])
            (partial / 'annotations' / 'synthetic.json').write_text(json.dumps(settings, indent=2) + '\n')

            for name in reversed(
                _files(former) if former else []
            ):  # what proves the former set complete goes first
                (out_dir / name).unlink(missing_ok=True)
            (out_dir / 'images').mkdir(exist_ok=True)
            (out_dir / 'annotations').mkdir(exist_ok=True)
            for name in _files(settings):
                os.replace(partial / name, out_dir / name)
        finally:
            shutil.rmtree(partial)
            if new and not any(out_dir.iterdir()):
                out_dir.rmdir()
    except OSError as error:
        raise InputError(f'{out_dir} cannot be written ({error}); choose another folder.') from error
    return True
