"""Persons of a validation as images: prediction, truth, and the heatmaps of the worst joint."""

import base64
import os
from dataclasses import dataclass

import cv2
import numpy as np

from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.images import ImageError, read_image
from hg_plugin.utils.latest_checkpoint import latest_checkpoint
from hg_plugin.visualization import blend_heatmap, crop_person, draw_skeleton

from .persons import Persons, joint_name
from .runs import Run

PERSON_SIZE, HEATMAP_SIZE, QUALITY = 240, 176, 80
RED, WHITE = (60, 60, 240), (255, 255, 255)


@dataclass
class Picture:
    """A person: data URIs of JPEGs, and what stands below."""

    title: str
    text: str
    prediction: str
    truth: str
    heatmaps: list[tuple[str, str]]  # with captions


def draw_persons(run: Run, persons: Persons, number: int = 12) -> tuple[dict[str, list[Picture]], list[str]]:
    """Draw the worst and the best persons.

    Args:
        run: Whose newest whole checkpoint computes the heatmaps.
        persons: Of its last validation.
        number: Persons of either kind. Defaults to 12.

    Returns:
        Pictures by heading, and sentences about what is missing.
    """
    ranking = persons.ranking()
    number = min(number, len(ranking) // 2)
    groups = dict(worst=ranking[: -number - 1 : -1], best=ranking[:number])
    missing = []
    try:
        estimator, note = _estimator(run, persons)
        missing += note
    except InputError as error:
        estimator = None
        missing.append(f'There are no heatmaps: {error}')
    drawn: dict[str, list[Picture]] = {}
    unreadable = []
    for name, indices in groups.items():
        drawn[name] = []
        for index in indices:
            try:
                image = read_image(str(persons.images[index]))
                drawn[name].append(_draw(persons, index, image, estimator, run))
            except (ImageError, OSError) as error:
                unreadable.append(str(error))
    if unreadable:
        missing.append(f'{len(unreadable)} persons cannot be drawn: {unreadable[0]}')
    return drawn, missing


def _estimator(run: Run, persons: Persons) -> tuple[PoseEstimator, list[str]]:
    hook = (run.config.get('default_hooks') or {}).get('checkpoint') or {}
    checkpoint = latest_checkpoint(str(run.folder), hook.get('out_dir'))
    if checkpoint is None:
        raise InputError(f'{run.folder} has no checkpoint.')
    config = run.starts[-1].folder / 'vis_data/config.py'
    estimator = PoseEstimator(config, checkpoint, device='cpu')
    return estimator, []


def _draw(
    persons: Persons, index: int, image: np.ndarray, estimator: PoseEstimator | None, run: Run
) -> Picture:
    errors = persons.errors()[index]
    worst = int(np.nanargmax(errors))
    center, scale = persons.centers[index], persons.scales[index]
    crop, matrix = crop_person(image, center, scale, PERSON_SIZE)
    predicted, true = (
        cv2.transform(np.asarray(points, np.float64)[None], matrix)[0]
        for points in (persons.keypoints[index, -1], persons.truth[index])
    )
    halves = [
        draw_skeleton(crop.copy(), points, persons.annotated[index], persons.meta)
        for points in (predicted, true)
    ]
    for half, points in zip(halves, (predicted, true)):
        cv2.circle(half, _pixel(points[worst]), 9, WHITE, 3, cv2.LINE_AA)
        cv2.circle(half, _pixel(points[worst]), 9, RED, 2, cv2.LINE_AA)
    heatmaps = []
    if estimator is not None:
        flip = bool(estimator.model.test_cfg.get('flip_test', False))
        maps = estimator(image, persons.boxes[index][None], flip_test=flip, heatmaps=True)
        heatmaps = _heatmaps(maps.heatmaps[0, :, worst], maps.crops[0], persons, index, worst)
    return Picture(
        title=f'Person {persons.ids[index]}',
        text=f'mean error {np.nanmean(errors):.2f} head sizes; {joint_name(worst)} {errors[worst]:.2f}. '
        + os.path.basename(str(persons.images[index])),
        prediction=encode(halves[0]),
        truth=encode(halves[1]),
        heatmaps=heatmaps,
    )


def _heatmaps(
    maps: np.ndarray, crop: np.ndarray, persons: Persons, index: int, joint: int
) -> list[tuple[str, str]]:
    """Every stage's heatmap (h, w) over the gray crop, with a ring at the truth, and its caption."""
    height, width = crop.shape[:2]
    size = max(round(HEATMAP_SIZE * width / height), 1), HEATMAP_SIZE
    gray = cv2.cvtColor(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    background = np.repeat(gray[..., None], 3, axis=2) * 0.8
    center, scale = persons.centers[index], persons.scales[index]
    place = (persons.truth[index, joint] - center + scale / 2) / scale * size
    drawn = []
    for stage, values in enumerate(maps):
        # the colours of each run to its own peak, however low
        cell = blend_heatmap(background, np.clip(values / max(float(values.max()), 1e-6), 0, 1))
        cv2.circle(cell, _pixel(place), 7, WHITE, 2, cv2.LINE_AA)
        y, x = np.unravel_index(values.argmax(), values.shape)
        peak = (x + 0.5) * size[0] / values.shape[1], (y + 0.5) * size[1] / values.shape[0]
        cv2.drawMarker(cell, _pixel(peak), WHITE, cv2.MARKER_CROSS, 11, 1, cv2.LINE_AA)
        drawn.append((encode(cell), f'stage {stage + 1}: {values.max():.2f}'))
    return drawn


def _pixel(point) -> tuple[int, int]:
    return int(np.clip(np.rint(point[0]), -9999, 9999)), int(np.clip(np.rint(point[1]), -9999, 9999))


def encode(image: np.ndarray) -> str:
    """A JPEG as a data URI."""
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return 'data:image/jpeg;base64,' + base64.b64encode(data.tobytes()).decode()
