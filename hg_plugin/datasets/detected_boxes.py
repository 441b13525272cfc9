"""Boxes of a person detector in place of annotated ones."""

import json
import logging
import os.path as osp

import numpy as np
from mmengine.logging import print_log

from hg_plugin.utils.array_files import read_file
from hg_plugin.utils.errors import InputError


def _read(path) -> dict[str | int, np.ndarray]:
    """Boxes of persons by image, (M, 5): left, top, right, bottom and score."""
    found: dict[str | int, list] = {}
    with open(path) as file:
        for detection in json.load(file):
            if detection.get('category_id', 1) == 1:
                left, top, width, height = detection['bbox']
                image = detection.get('file_name', detection.get('image_id'))
                box = [left, top, left + width, top + height, detection.get('score', 1)]
                found.setdefault(image, []).append(box)
    return {image: np.array(boxes, np.float64) for image, boxes in found.items()}


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
    found = read_file(path, _read, 'give a list of COCO detections')
    boxes, scores = boxes.astype(np.float32), np.zeros(len(boxes), np.float32)
    for index, image in enumerate(images):
        stem = osp.splitext(image)[0]
        names = (image, stem, int(stem) if stem.isdecimal() else stem)
        candidates = next((found[name] for name in names if name in found), np.empty((0, 5)))
        overlaps = _overlaps(candidates, boxes[index])
        if overlaps.any():
            *box, scores[index] = candidates[overlaps.argmax()]
            boxes[index] = box
    missed = int((scores == 0).sum())
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


def _overlaps(candidates: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Intersection over union, (M,), of boxes (M, 5) with one."""
    sides = np.minimum(candidates[:, 2:4], box[2:]) - np.maximum(candidates[:, :2], box[:2])
    intersection = sides.clip(min=0).prod(axis=1)
    areas = (candidates[:, 2:4] - candidates[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return intersection / (areas - intersection)
