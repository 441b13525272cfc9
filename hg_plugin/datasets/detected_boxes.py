"""Boxes of a person detector in place of annotated ones."""

import logging
import os.path as osp
from typing import NamedTuple

import numpy as np
from mmengine.logging import print_log

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.json_files import Json, read_json

# of a person in COCO's files
PERSON = 1


class Detection(NamedTuple):
    """A person that a detector has found: the image's name or number, the box and its score."""

    image: str | int
    box: list[float]  # left, top, right, bottom
    score: float


def read_detection(item: Json) -> Detection | None:
    """Read an item of COCO's detections or annotations; None if it is no person.

    Raises:
        InputError: It is not like ``{image_id, bbox [x, y, width, height], score, category_id}``.
    """
    category, score, image = item.get('category_id'), item.get('score'), item.get('file_name', 'image_id')
    if category is not None and category.value != PERSON:
        return None
    left, top, width, height = item['bbox'].numbers(4)
    if image is None:
        item.fail('an object with file_name or image_id')
    return Detection(image.name(), [left, top, left + width, top + height], score.number() if score else 1.0)


def detected_boxes(path: str, images: list[str], boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the detection that belongs to each annotated person: the one of the largest overlap (IoU).

    Args:
        path: COCO's results of a detector, a JSON list of ``{image_id, bbox [x, y, width, height], score,
            category_id}`` in 0-based pixels. ``image_id`` or ``file_name`` is the image's name, with or
            without extension, or its number. Only category 1 counts, persons.
        images: Names of the N persons' images.
        boxes: (N, 4) left, top, right and bottom of the annotated boxes.

    Returns:
        Boxes (N, 4) float32 and scores (N,) float32. Persons whom no detection overlaps keep their box, with
        score 0; their number is logged.

    Raises:
        InputError: The file cannot be read, or holds no detection in these images.
    """
    found: dict[str | int, list[Detection]] = {}
    for detection in filter(None, map(read_detection, read_json(path, 'a list of COCO detections'))):
        found.setdefault(detection.image, []).append(detection)
    boxes, scores, missed = boxes.astype(np.float32), np.zeros(len(boxes), np.float32), 0
    for index, image in enumerate(images):
        stem = osp.splitext(image)[0]
        names = (image, stem, int(stem) if stem.isdecimal() else stem)
        candidates = next((found[name] for name in names if name in found), [])
        overlaps = iou(np.reshape([one.box for one in candidates], (-1, 4)), boxes[index])
        if overlaps.any():
            best = candidates[overlaps.argmax()]
            boxes[index], scores[index] = best.box, best.score
        else:
            missed += 1
    if missed == len(boxes):
        raise InputError(
            f'{path} has no box of a person in the images of the annotations; image_id must be the name of '
            'an image, such as 015601864.jpg, or its number.'
        )
    if missed:
        print_log(
            f'{path} has no box of {missed} of {len(boxes)} persons, whose annotated boxes are used.',
            'current',
            logging.WARNING,
        )
    return boxes, scores


def iou(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Intersection over union, (N,), of boxes (N, 4) with one (4,): left, top, right and bottom."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    shared = sides.clip(min=0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return shared / np.maximum(areas - shared, 1e-9)
