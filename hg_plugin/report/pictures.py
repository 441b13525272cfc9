"""Persons of a validation as images: prediction, truth, and the heatmaps of the worst joint."""

import base64
import os

import cv2
import mmengine.registry
import mmpose.registry
import numpy as np
from mmengine.config import Config
from mmengine.registry import Registry

from hg_plugin.datasets.walk import walk
from hg_plugin.engine.resume.latest import latest_checkpoint
from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.inference.results import Poses
from hg_plugin.utils.config import parts_of
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.images import ImageError, read_image
from hg_plugin.visualization import blend_heatmap, crop_person, draw_skeleton

from .persons import Persons, joint_name, mpii_meta
from .runs import Run

# persons of either kind
NUMBER = 12
PERSON_SIZE, HEATMAP_SIZE, QUALITY = 240, 176, 80
RED, WHITE = (60, 60, 240), (255, 255, 255)


def draw_persons(run: Run, persons: Persons) -> tuple[dict[str, list[dict]], list[str]]:
    """Draw the worst and the best persons.

    Returns:
        By heading, persons with ``title``, ``text``, images as data URIs, ``prediction`` and ``truth``, and
        ``heatmaps``, (image, caption) by stage; and sentences about what is missing.
    """
    ranking = persons.ranking().tolist()
    number = min(NUMBER, len(ranking) // 2)
    groups = dict(worst=ranking[: -number - 1 : -1], best=ranking[:number])
    images, problems, missing = {}, [], []
    for index in sum(groups.values(), []):
        try:
            images[index] = read_image(str(persons.images[index]))
        except (ImageError, OSError) as error:
            problems.append(str(error))
    if problems:
        missing.append(f'{len(problems)} persons cannot be drawn: {problems[0]}')
    maps: dict[int, Poses] = {}
    try:
        maps = _run_network(run, persons, images)
    except Exception as error:  # settings may be of any type, and images need not fit the network
        missing.append(f'There are no heatmaps: {error}')
    drawn = {
        name: [_draw(persons, index, images[index], maps.get(index)) for index in indices if index in images]
        for name, indices in groups.items()
    }
    return drawn, missing


def _run_network(run: Run, persons: Persons, images: dict[int, np.ndarray]) -> dict[int, Poses]:
    """Heatmaps of the newest whole checkpoint, on the CPU: a training may need all of the GPU."""
    checkpoint = latest_checkpoint(str(run.folder), run.setting('default_hooks.checkpoint.out_dir'))
    if checkpoint is None:
        raise InputError(f'{run.folder} has no checkpoint.')
    estimator = PoseEstimator(_network_config(run), checkpoint, device='cpu')
    people = [(image, persons.boxes[index][None]) for index, image in images.items()]
    return dict(zip(images, estimator.stream(people, heatmaps=True)))


def _network_config(run: Run) -> Config:
    """Network and test pipeline, of which nothing is imported or run that is not registered here.

    Raises:
        InputError: A type is not registered: MMEngine would import it by its name.
    """
    datasets = walk(Config(run.setting('test_dataloader')).dataset)
    pipeline = next(each.pipeline for each in datasets if each.get('pipeline'))
    # metainfo may name a file that would be run
    model = {key: value for key, value in run.config['model'].items() if key != 'metainfo'}
    config = Config(dict(model=model, test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    registries = [*vars(mmengine.registry).values(), *vars(mmpose.registry).values()]
    known = {name for own in registries if isinstance(own, Registry) for name in own.module_dict}
    for place, part in parts_of(config, '.*').items():
        if 'type' in part and part['type'] not in known:
            raise InputError(f'{place}.type is {part["type"]!r}, which MMPose and hg_plugin do not have.')
    return config


def _draw(persons: Persons, index: int, image: np.ndarray, poses: Poses | None) -> dict:
    errors = persons.errors()[index]
    worst = int(np.nanargmax(errors))
    center, scale = persons.centers[index], persons.scales[index]
    crop, matrix = crop_person(image, center, scale, PERSON_SIZE)
    halves = []
    for points in (persons.keypoints[index, -1], persons.truth[index]):
        points = cv2.transform(np.asarray(points, np.float64)[None], matrix)[0]
        half = draw_skeleton(crop.copy(), points, persons.annotated[index], mpii_meta())
        cv2.circle(half, _pixel(points[worst]), 9, WHITE, 3, cv2.LINE_AA)
        cv2.circle(half, _pixel(points[worst]), 9, RED, 2, cv2.LINE_AA)
        halves.append(_encode(half))
    heatmaps = []
    if poses:
        place = (persons.truth[index, worst] - center) / scale + 0.5
        heatmaps = [_draw_heatmap(maps, poses.crops[0], place) for maps in poses.heatmaps[0, :, worst]]
    file = os.path.basename(str(persons.images[index]))
    return dict(
        title=f'Person {persons.ids[index]}',
        text=f'mean error {np.nanmean(errors):.2f} heads, {joint_name(worst)} {errors[worst]:.2f}. {file}',
        prediction=halves[0],
        truth=halves[1],
        heatmaps=heatmaps,
    )


def _draw_heatmap(heatmap: np.ndarray, crop: np.ndarray, place: np.ndarray) -> tuple[str, float]:
    """A heatmap (h, w) over the gray crop, with a ring at the truth, in shares of the crop; and its peak."""
    size = max(round(HEATMAP_SIZE * crop.shape[1] / crop.shape[0]), 1), HEATMAP_SIZE
    gray = cv2.cvtColor(cv2.resize(crop, size, interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2GRAY)
    maximum = float(heatmap.max())
    # the colours run to its own peak, however low
    values = np.clip(heatmap / max(maximum, 1e-6), 0, 1)
    cell = blend_heatmap(np.repeat(gray[..., None], 3, axis=2) * 0.8, values)
    cv2.circle(cell, _pixel(place * size), 7, WHITE, 2, cv2.LINE_AA)
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    peak = (np.array([x, y]) + 0.5) / heatmap.shape[::-1] * size
    cv2.drawMarker(cell, _pixel(peak), WHITE, cv2.MARKER_CROSS, 11, 1, cv2.LINE_AA)
    return _encode(cell), maximum


def _pixel(point: np.ndarray) -> list[int]:
    return np.rint(point).astype(int).tolist()


def _encode(image: np.ndarray) -> str:
    """A JPEG as a data URI."""
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return 'data:image/jpeg;base64,' + base64.b64encode(data.tobytes()).decode()
