"""Persons of a validation as images: prediction, truth, and the heatmaps of the worst joint."""

import base64
import os

import cv2
import mmengine.registry
import mmpose.registry
import numpy as np
from mmengine.config import Config
from mmengine.registry import Registry

from hg_plugin.engine.resume.latest import latest_checkpoint
from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.inference.results import Poses
from hg_plugin.utils.config import parts_of
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.images import ImageError, read_image
from hg_plugin.visualization import blend_heatmap, crop_person, draw_skeleton

from .persons import Persons, joint_name, mpii_meta
from .runs import Run

PERSON_SIZE, HEATMAP_SIZE, QUALITY = 240, 176, 80
RED, WHITE = (60, 60, 240), (255, 255, 255)


def draw_persons(run: Run, persons: Persons, number: int = 12) -> tuple[dict[str, list[dict]], list[str]]:
    """Draw the worst and the best persons.

    Args:
        run: Whose newest whole checkpoint computes the heatmaps.
        persons: Of its last validation.
        number: Persons of either kind. Defaults to 12.

    Returns:
        By heading, persons with ``title``, ``text``, images as data URIs, ``prediction`` and ``truth``, and
        ``heatmaps``, (image, caption) by stage; and sentences about what is missing.
    """
    ranking = persons.ranking()
    number = min(number, len(ranking) // 2)
    groups = dict(worst=ranking[: -number - 1 : -1], best=ranking[:number])
    images, missing = _read_images(persons, np.concatenate([*groups.values()]))
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


def _read_images(persons: Persons, indices: np.ndarray) -> tuple[dict[int, np.ndarray], list[str]]:
    images, problems = {}, []
    for index in indices.tolist():
        try:
            images[index] = read_image(str(persons.images[index]))
        except (ImageError, OSError) as error:
            problems.append(str(error))
    missing = [f'{len(problems)} persons cannot be drawn: {problems[0]}'] if problems else []
    return images, missing


def _run_network(run: Run, persons: Persons, images: dict[int, np.ndarray]) -> dict[int, Poses]:
    """Heatmaps of the newest whole checkpoint, on the CPU: a training may need all of the GPU."""
    out_dir = run.setting('default_hooks', 'checkpoint', 'out_dir')
    out_dir = out_dir if isinstance(out_dir, str) else None
    checkpoint = latest_checkpoint(str(run.folder), out_dir) if images else None
    if checkpoint is None:
        raise InputError(f'{run.folder} has no checkpoint.' if images else 'no image can be read.')
    estimator = PoseEstimator(_network_config(run), checkpoint, device='cpu')
    people = [(image, persons.boxes[index][None]) for index, image in images.items()]
    return dict(zip(images, estimator.stream(people, heatmaps=True)))


def _network_config(run: Run) -> Config:
    """Network and test pipeline, of which nothing is imported or run that is not registered here.

    Raises:
        InputError: A type is not registered: MMEngine would import it by its name.
    """
    dataset = run.setting('test_dataloader', 'dataset')
    while not dataset.get('pipeline'):  # of RepeatDataset, ConcatDataset, CombinedDataset
        dataset = dataset['dataset'] if 'dataset' in dataset else dataset['datasets'][0]
    # metainfo may name a file that would be run
    model = {key: value for key, value in run.config['model'].items() if key != 'metainfo'}
    config = Config(dict(model=model, test_dataloader=dict(dataset=dict(pipeline=dataset['pipeline']))))
    registries = [*vars(mmengine.registry).values(), *vars(mmpose.registry).values()]
    known = {name for own in registries if isinstance(own, Registry) for name in own.module_dict}
    for place, part in parts_of(config, '.*').items():
        if 'type' in part and part['type'] not in known:
            raise InputError(f'{place}.type is {part["type"]!r}, which MMPose and hg_plugin do not have.')
    return config


def _draw(persons: Persons, index: int, image: np.ndarray, maps: Poses | None) -> dict:
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
        halves.append(encode(half))
    file = os.path.basename(str(persons.images[index]))
    return dict(
        title=f'Person {persons.ids[index]}',
        text=f'mean error {np.nanmean(errors):.2f} heads, {joint_name(worst)} {errors[worst]:.2f}. {file}',
        prediction=halves[0],
        truth=halves[1],
        heatmaps=_heatmaps(maps.heatmaps[0, :, worst], maps.crops[0], persons, index, worst) if maps else [],
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
        drawn.append((encode(cell), f'stage {stage}: {values.max():.2f}'))
    return drawn


def _pixel(point) -> tuple[int, int]:
    return int(np.clip(np.rint(point[0]), -9999, 9999)), int(np.clip(np.rint(point[1]), -9999, 9999))


def encode(image: np.ndarray) -> str:
    """A JPEG as a data URI."""
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return 'data:image/jpeg;base64,' + base64.b64encode(data.tobytes()).decode()
