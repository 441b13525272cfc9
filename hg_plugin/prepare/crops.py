"""A cache of person crops, from which a config trains as from the full images, several times faster."""

import os
import os.path as osp
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope

from hg_plugin.datasets import MPIIPoseDataset, TopdownCrop
from hg_plugin.datasets.transforms import reduced_to_image
from hg_plugin.mpii_format import (
    CENTER_SHIFT,
    JOINTS,
    NUM_JOINTS,
    load_annotations,
    load_ground_truth,
    load_head_boxes,
    save_annotations,
    save_ground_truth,
)
from hg_plugin.utils.checkpoint import digest
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.images import ImageError, read_image
from hg_plugin.utils.progress import imap_with_progress

from .settings import claim_folder

MARGIN = 2  # pixels beyond the farthest sample, for interpolation and rounding
ALIGNMENT = 8  # of a crop's corner in pixels, so that a crop is reduced to the same pixels as its image


class Crop(NamedTuple):
    """A window of the image at 1 / ``reduction`` of its size, from ``start`` to ``end`` (x, y), resized."""

    image: str
    path: str
    reduction: int
    start: tuple[int, int]
    end: tuple[int, int]
    factor: float


def plan_crop(image: str, path: str, bbox: np.ndarray, padding: float, topdown: TopdownCrop) -> Crop:
    """The crop of the person in ``bbox`` (4,), just large enough for all samples; a JPEG's may be resized."""
    center, side = (bbox[:2] + bbox[2:]) / 2.0, float(bbox[2] - bbox[0]) * padding
    smallest = side * min(topdown.scale_factor)
    (width, _), reduction = topdown.region(smallest, smallest)
    # no sample magnifies the crop more than it would the image
    factor = min(1.0, topdown.input_size[0] * reduction / width) if path.endswith('.jpg') else 1.0
    # how far from the center a sample can reach along x and y
    region = np.array(topdown.region(side, side)[0]) * max(topdown.scale_factor)
    angles = np.deg2rad(np.linspace(0, min(topdown.rotate_factor, 90), 91))[:, None]
    rotated = np.cos(angles) * region + np.sin(angles) * region[::-1]
    extent = rotated.max(axis=0) / 2 + topdown.shift_factor * side
    center = (center - reduced_to_image(reduction)[:2, 2]) / reduction
    extent = extent / reduction + MARGIN / factor
    start = np.maximum(np.floor((center - extent) / ALIGNMENT) * ALIGNMENT, 0).astype(int)
    end = np.maximum(np.ceil((center + extent) / ALIGNMENT) * ALIGNMENT, start + 1).astype(int)
    return Crop(image, path, reduction, tuple(start.tolist()), tuple(end.tolist()), factor)


def _make_crop(quality: int, crop: Crop) -> str | None:
    """Write a crop, or return what is wrong with its image."""
    (left, top), (right, bottom) = crop.start, crop.end
    try:
        window = read_image(crop.image, crop.reduction)[top:bottom, left:right]
    except ImageError as error:
        return str(error)
    if not window.size:  # the person is outside the image
        window = np.zeros((1, 1, 3), np.uint8)
    if crop.factor < 1:
        window = cv2.resize(window, None, fx=crop.factor, fy=crop.factor, interpolation=cv2.INTER_AREA)
    extension = osp.splitext(crop.path)[1]
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if extension == '.jpg' else []
    with atomic_write(crop.path) as file:
        file.write(cv2.imencode(extension, window, options)[1].tobytes())
    return None


def make_crops(
    cfg: Config, out: str, *, lossless: bool = False, quality: int = 90, num_workers: int = 1
) -> None:
    """Make a data root of person crops from a config's training and validation sets.

    A crop holds all that the config's augmentation can need, at a resolution that no sample magnifies more
    than it would the image. Joints, centers, scales and head boxes are in its pixels, so that the config
    trains from it with another ``data_root``. Validation crops are lossless, so that scores stay the same.
    An interrupted run goes on where it was. Annotations are written last, when all crops are there.

    Args:
        cfg: A config with :class:`MPIIPoseDataset` and :class:`TopdownCrop` in both loaders.
        out: The new data root, a folder that is empty or holds crops of the same settings.
        lossless: Store windows of the decoded training images as they are, as BMP: twenty times larger, and
            faster to read. Defaults to False: JPEG, and persons larger than the network's input are made
            smaller.
        quality: Quality of the JPEG files, 1 to 100. Defaults to 90.
        num_workers: Processes. Defaults to 1.

    Raises:
        InputError: If no crops can be made from a dataset or pipeline, or ``out`` holds something else or
            cannot be written; and, after all other crops are made, if images are damaged.
    """
    init_default_scope(cfg.get('default_scope', 'mmpose'))
    settings, plans = dict(lossless=lossless, quality=quality), []
    for split in ('train', 'val'):
        dataset, padding, topdown = _build(cfg[f'{split}_dataloader'].dataset, split)
        settings[f'{split}.sha256'] = digest(dataset.ann_file)
        settings[f'{split}.padding'] = padding
        for key in ('input_size', 'rotate_factor', 'scale_factor', 'shift_factor'):
            settings[f'{split}.{key}'] = getattr(topdown, key)
        paths = dataset.ann_file, dataset.data_prefix['img'], dataset.headbox_file
        ann_file, images, headbox_file = (path and _moved(path, dataset.data_root, out) for path in paths)
        # a PNG takes longer to decode than the whole JPEG that it is cut from
        extension = '.bmp' if lossless or split == 'val' else '.jpg'
        crops = []
        for index in range(len(dataset)):
            person = dataset.get_data_info(index)
            name = f'{split}/{Path(person["img_path"]).stem}_{index:05d}{extension}'
            path = osp.join(images, name)
            crops.append(plan_crop(person['img_path'], path, person['bbox'][0], padding, topdown))
        plans.append((dataset, crops, ann_file, images, headbox_file))
    claim_folder(out, 'crops.json', settings)

    crops = [crop for plan in plans for crop in plan[1]]
    todo = [crop for crop in crops if not osp.isfile(crop.path)]
    if len(todo) < len(crops):
        print(f'{len(crops) - len(todo):,} of {len(crops):,} crops are there already.')
    results = imap_with_progress(partial(_make_crop, quality), todo, num_workers, 'crops')
    if problems := list(filter(None, results)):
        print(*problems[:20], sep='\n')
        raise InputError(
            f'{len(problems):,} of {len(crops):,} crops could not be made, for the reasons above; get these '
            'images again, and run this again to make the missing crops.'
        )
    for plan in plans:
        _write_annotations(*plan)
    print(f'{len(crops):,} crops and their annotations are in {out}, the new data_root.')


def _build(cfg: dict, split: str) -> tuple[MPIIPoseDataset, float, TopdownCrop]:
    """The dataset without its pipeline, the padding of its boxes, and its crop."""
    pipeline = cfg.get('pipeline', [])
    types = [transform.get('type') for transform in pipeline[:2]]
    if cfg.get('type') != 'MPIIPoseDataset' or types != ['GetBBoxCenterScale', 'TopdownCrop']:
        raise InputError(
            f'{split}_dataloader.dataset is a {cfg.get("type")} whose pipeline starts with {types}; crops '
            'need an MPIIPoseDataset with GetBBoxCenterScale, TopdownCrop; train on the full images.'
        )
    box, topdown = (TRANSFORMS.build(transform) for transform in pipeline[:2])
    return DATASETS.build({**cfg, 'pipeline': []}), box.padding, topdown


def _moved(path: str, data_root: str, out: str) -> str:
    """The place in ``out`` of a path in ``data_root``."""
    relative = osp.relpath(path, data_root)
    if relative.split(os.sep)[0] == os.pardir:
        raise InputError(
            f'{path} is outside of data_root {data_root}, and crops would need another path; move it there.'
        )
    return osp.join(out, relative)


def _write_annotations(
    dataset: MPIIPoseDataset, crops: list[Crop], ann_file: str, images: str, headbox_file: str | None
) -> None:
    """Write the dataset's annotation file, and its head-box file if it has one, in pixels of the crops."""
    count = dataset.metainfo['num_keypoints']
    names = JOINTS if count == NUM_JOINTS else [*dataset.metainfo['keypoint_id2name'].values()]
    annotations = load_annotations(dataset.ann_file, count)
    reduction, factor, start = (
        np.array([getattr(crop, name) for crop in crops]) for name in ('reduction', 'factor', 'start')
    )
    scale = factor / reduction
    offset = (0.5 - (reduction - 1) / 2 / reduction)[:, None] - start

    def move(points: np.ndarray) -> np.ndarray:
        """Points (N, K, 2) of images in their crops, both in 0-based pixels."""
        return points * scale[:, None, None] + (offset * factor[:, None] - 0.5)[:, None]

    shift = np.array([0, CENTER_SHIFT])
    lowered = annotations['center'] + shift * annotations['scale'][:, None]
    annotations['scale'] *= scale
    annotations.update(
        image=[osp.relpath(crop.path, images) for crop in crops],
        center=move(lowered[:, None])[:, 0] - shift * annotations['scale'][:, None],
        joints=move(annotations['joints']),
    )
    if headbox_file:
        truth = load_ground_truth(dataset.headbox_file)
        boxes = move(load_head_boxes(dataset.headbox_file))
        save_ground_truth(headbox_file, move(truth['gt']), truth['visible'], boxes, names)
    save_annotations(ann_file, annotations)
