"""Boxes of persons: checked, and read from files of several layouts."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.images import MAX_SIDE, ImageError

from .inputs import Source, is_stream, is_video

# of a detected person that counts
MIN_SCORE = 0.3
# of a person in COCO's files
PERSON = 1

# one input's: boxes for all of it, or for each frame by its number
Boxes = Sequence[Sequence[float]] | Mapping[int, Sequence[Sequence[float]]]


def check_boxes(boxes: Sequence | None, image: np.ndarray) -> np.ndarray:
    """Return boxes as (N, 4) float32; one box, the whole image, for None.

    Raises:
        ImageError: If the shape is wrong, or a box is empty, inverted, too large, outside the image or in
            shares of it.
    """
    height, width = image.shape[:2]
    boxes = [[0, 0, width, height]] if boxes is None else boxes
    try:
        boxes = np.asarray(boxes, np.float32).reshape(len(boxes), 4)
    except (TypeError, ValueError, OverflowError) as error:
        raise ImageError('The boxes are not numbers of shape (N, 4): left, top, right, bottom.') from error
    for index, (left, top, right, bottom) in enumerate(boxes.tolist()):
        if not (left < right and top < bottom and np.isfinite(boxes[index]).all()):
            problem = 'is empty or inverted; give left, top, right and bottom in this order'
        elif max(right, bottom) <= 1 < min(width, height):
            problem = 'is in shares of the image; give pixels'
        elif max(width, height, right - left, bottom - top) > MAX_SIDE:
            problem = f'is too large, or the image is: OpenCV crops at most {MAX_SIDE:,} pixels a side'
        elif right <= 0 or bottom <= 0 or left >= width or top >= height:
            problem = 'lies outside; give pixels of this image'
        else:
            continue
        box = f'Box {index}, [{left:g}, {top:g}, {right:g}, {bottom:g}]'
        raise ImageError(f'{box} in an image of {width}x{height} pixels, {problem}.')
    return boxes


def boxes_and_scores(boxes: Boxes | None, image: np.ndarray, frame: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the checked boxes (N, 4) of an image or frame, and their scores (N,), 1 if not known.

    Rows may have a score as their fifth number. A frame that is not among several has no persons.

    Raises:
        ImageError: See :func:`check_boxes`.
    """
    if isinstance(boxes, Mapping):
        boxes = boxes.get(frame, [])
    rows = (list, tuple, np.ndarray)
    scored = isinstance(boxes, rows) and all(isinstance(row, rows) and len(row) == 5 for row in boxes)
    checked = check_boxes([row[:4] for row in boxes] if scored else boxes, image)
    return checked, np.array([row[4] for row in boxes] if scored else [1] * len(checked), np.float32)


def read_boxes(
    boxes: str | PathLike | Mapping[str, Boxes] | Sequence[Sequence[float]], inputs: Sequence[Source]
) -> dict[Source, Boxes]:
    """Find the boxes of the inputs; :func:`boxes_and_scores` checks them.

    Args:
        boxes: In one of these layouts, or a JSON file with one of all but the first:

            - ``[[left, top, right, bottom], ...]`` for every input. A score may be the fifth number.
            - ``{'a.jpg': [[left, top, right, bottom], ...]}``, where a key is an input or its last part; for
              the frames of a video, ``{'a.mp4': [boxes of frame 0, boxes of frame 1, ...]}`` or ``{'a.mp4':
              {'17': boxes of frame 17}}``.
            - COCO's detections ``[{image_id or file_name, bbox [x, y, width, height], score, category_id},
              ...]`` or annotations ``{images, annotations}``, of which persons (category 1) with a score of
              0.3 or more count. An ``image_id`` is the number in an image's name, or the number of a frame if
              a video is the only input; so is a ``frame_id``.
            - MMPose's predictions for a video, ``[{frame_id, instances}, ...]``, or ``[{frame_id, boxes},
              ...]``, if a video is the only input.
        inputs: What :func:`find_inputs` returns.

    Raises:
        InputError: If the file cannot be read, or names none of the inputs.
    """
    source, example = 'The boxes', '{"a.jpg": [[left, top, right, bottom]]}'
    if isinstance(boxes, Sequence) and not isinstance(boxes, str):
        return dict.fromkeys(inputs, boxes)
    if not isinstance(boxes, Mapping):
        source = f'The boxes {boxes}'
        try:
            boxes = json.loads(Path(boxes).read_text())
        except (OSError, ValueError) as error:
            raise InputError(f'{source} cannot be read: {error}; give JSON, such as {example}.') from error
    if isinstance(boxes, Mapping) and {'images', 'annotations'} <= boxes.keys():
        names = {image['id']: image['file_name'] for image in boxes['images']}
        boxes = [dict(item, file_name=names.get(item['image_id'])) for item in boxes['annotations']]
    found, video = {}, inputs[0] if len(inputs) == 1 and is_video(inputs[0]) else None
    if isinstance(boxes, Mapping):
        keys = {path: (str(path), getattr(path, 'name', path)) for path in inputs}
        found = {path: _by_frame(boxes[key]) for path in inputs for key in keys[path] if key in boxes}
    elif isinstance(boxes, list) and video and isinstance(_by_frame(boxes), dict):
        found = {video: _by_frame(boxes)}
    elif isinstance(boxes, list):
        found = _of_items([item for item in boxes if isinstance(item, dict)], inputs, video)
    if not found:
        start = textwrap.shorten(str(boxes), 60)
        raise InputError(f'{source} are of none of the inputs: {start}; give boxes such as {example}.')
    return found


def _by_frame(boxes) -> Boxes:
    """One input's boxes, as a dict if they are of frames: a list of lists of boxes, or a dict of them."""
    if isinstance(boxes, Mapping):
        return {int(frame): of_frame for frame, of_frame in boxes.items() if str(frame).isdecimal()}
    if isinstance(boxes, list) and any(
        isinstance(item, list) and (not item or isinstance(item[0], list)) for item in boxes
    ):
        return dict(enumerate(boxes))
    return boxes


def _of_items(items: list[dict], inputs: Sequence[Source], video: Source | None) -> dict[Source, Boxes]:
    """Detections, or frames of the video, see :func:`read_boxes`."""
    names: dict[str | int, Source] = {}
    for path in inputs:
        names[str(path)] = path
        if not is_stream(path):
            names |= {path.name: path, path.stem: path}
            if path.stem.isdecimal():
                names[int(path.stem)] = path
    found: dict[Source, Boxes] = {}
    for item in items:
        key = item.get('file_name', item.get('image_id'))
        by_name = names.get(key, names.get(str(key).rpartition('/')[2]))
        frame = item.get('frame_id', item.get('image_id') if video and by_name is None else None)
        path = by_name or video
        if path is None or (frame is not None and not str(frame).isdecimal()):
            continue
        if frame is None:
            place = found.setdefault(path, [])
        else:
            place = found.setdefault(path, {}).setdefault(int(frame), [])
        if 'instances' in item:
            place += [[*person['bbox'][0], person.get('bbox_score', 1)] for person in item['instances']]
        elif 'boxes' in item:
            place += item['boxes']
        elif len(item.get('bbox', ())) == 4 and item.get('category_id', PERSON) == PERSON:
            x, y, width, height = item['bbox']
            if item.get('score', 1) >= MIN_SCORE:
                place.append([x, y, x + width, y + height, item.get('score', 1)])
    return found
