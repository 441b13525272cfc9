"""Boxes of persons: checked, and read from files of several layouts."""

import re
import reprlib
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from hg_plugin.datasets.detected_boxes import read_detection
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.images import MAX_SIDE, ImageError
from hg_plugin.utils.json_files import Json, read_json

from .inputs import Source, is_video

# of a detected person that counts
MIN_SCORE = 0.3

# one input's: boxes for all of it, or for each frame by its number
Boxes = Sequence[Sequence[float]] | Mapping[int, Sequence[Sequence[float]]]


def check_boxes(boxes: Sequence | None, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes (N, 4) and scores (N,), float32, of an image; one box, the whole image, for None.

    Args:
        boxes: N rows of left, top, right, bottom and perhaps a score, which is 1 otherwise.
        image: (H, W, 3).

    Raises:
        ImageError: If the shape is wrong, or a box is empty, inverted, too large, outside the image or in
            shares of it.
    """
    height, width = image.shape[:2]
    boxes = [[0, 0, width, height]] if boxes is None else boxes
    try:
        rows = [(*row, 1)[: max(5, len(row))] for row in boxes]
        rows = np.asarray(rows, np.float32).reshape(len(rows), 5)
    except (TypeError, ValueError, OverflowError) as error:
        raise ImageError('The boxes are not numbers of shape (N, 4): left, top, right, bottom.') from error
    for index, (left, top, right, bottom) in enumerate(rows[:, :4].tolist()):
        corners = rows[index, :4]
        if not (left < right and top < bottom and np.isfinite(corners).all()):
            problem = 'is empty or inverted; give left, top, right and bottom in this order'
        elif np.abs(corners - 0.5).max() <= 1 < min(width, height) - 1:
            problem = 'is in shares of the image; give pixels'
        elif max(width, height, right - left, bottom - top) > MAX_SIDE:
            problem = f'is too large, or the image is: OpenCV crops at most {MAX_SIDE:,} pixels a side'
        elif right <= 0 or bottom <= 0 or left >= width or top >= height:
            problem = 'lies outside; give pixels of this image'
        else:
            continue
        box = f'Box {index}, [{left:g}, {top:g}, {right:g}, {bottom:g}]'
        raise ImageError(f'{box} in an image of {width}x{height} pixels, {problem}.')
    return rows[:, :4], rows[:, 4]


def read_boxes(
    boxes: str | PathLike | Mapping[str, Boxes] | Sequence | np.ndarray,
    inputs: Sequence[Source],
) -> dict[Source, Boxes]:
    """Find the boxes of the inputs; :func:`check_boxes` checks them.

    Args:
        boxes: In one of these layouts, or a JSON file with one of them:

            - ``[[left, top, right, bottom], ...]`` for every input. A score may be the fifth number.
            - ``{'a.jpg': [[left, top, right, bottom], ...]}``, where a key is an input or its last part; for
              the frames of a video, ``{'a.mp4': [boxes of frame 0, boxes of frame 1, ...]}`` or ``{'a.mp4':
              {'17': boxes of frame 17}}``.
            - COCO's detections ``[{image_id or file_name, bbox [x, y, width, height], score, category_id},
              ...]`` or annotations ``{images, annotations}``, of which persons (category 1) with a score of
              0.3 or more count. An ``image_id`` is the number in an image's name, or the number of a frame if
              a video is the only input.
            - What :func:`infer_files` writes, for the only input or the one of this name.
        inputs: What :func:`find_inputs` returns.

    Raises:
        InputError: If the file cannot be read, something in it is wrong, or it names none of the inputs.
    """
    example = 'boxes, such as {"a.jpg": [[left, top, right, bottom]]}'
    is_file = isinstance(boxes, (str, PathLike))
    content = read_json(boxes, example) if is_file else Json(boxes, 'boxes')
    if content.is_object and {'images', 'annotations'} <= content.value.keys():
        names = {image['id'].name(): image['file_name'].name() for image in content['images']}
        found = _of_coco(content['annotations'], inputs, names)
    elif content.is_object and {'persons', 'frames'} & content.value.keys():
        found = _of_predictions(content, inputs)
    elif content.is_object:
        keys = {path: (str(path), getattr(path, 'name', path)) for path in inputs}
        found = {
            path: _of_input(content[key]) for path in inputs for key in keys[path] if key in content.value
        }
    elif content.is_list and any(item.is_object for item in content):
        found = _of_coco(content, inputs)
    else:
        return dict.fromkeys(inputs, _of_input(content))
    if not found:
        raise InputError(
            f'The {content.place} are of none of the inputs: {reprlib.repr(content.value)}; give {example}.'
        )
    return found


def _of_input(boxes: Json) -> Boxes:
    """One input's boxes, by frame if they are a list of lists of boxes, or an object of them."""
    if boxes.is_object:
        return {Json(frame, boxes.place).whole_number(): _rows(of_frame) for frame, of_frame in boxes.items()}
    if any(item.is_list and all(row.is_list for row in item) for item in boxes):
        return dict(enumerate(map(_rows, boxes)))
    return _rows(boxes)


def _rows(boxes: Json) -> list[list[float]]:
    return [box.numbers(4, 5) for box in boxes]


def _of_predictions(content: Json, inputs: Sequence[Source]) -> dict[Source, Boxes]:
    """The boxes of a file of :func:`hg_plugin.inference.files.infer_files`."""

    def rows(persons: Json) -> list[list[float]]:
        return [[*person['box'].numbers(4), person['box_score'].number()] for person in persons]

    name = content.get('image', 'video')
    file = re.split(r'[/\\]', str(name.value))[-1] if name else None
    chosen = inputs if len(inputs) == 1 else [path for path in inputs if getattr(path, 'name', path) == file]
    if frames := content.get('frames'):
        boxes = {frame['frame_id'].whole_number(): rows(frame['persons']) for frame in frames}
        return dict.fromkeys(chosen, boxes)
    return dict.fromkeys(chosen, rows(content['persons']))


def _of_coco(items: Json, inputs: Sequence[Source], names_of_ids: Mapping = {}) -> dict[Source, Boxes]:
    """Detections, or annotations of images with these names, see :func:`read_boxes`."""
    video = inputs[0] if len(inputs) == 1 and is_video(inputs[0]) else None
    sources: dict[str | int, Source] = {}
    for source in inputs:
        path = Path(source)
        sources |= dict.fromkeys((str(source), path.name, path.stem), source)
        if path.stem.isdecimal():
            sources[int(path.stem)] = source
    found: dict[Source, Boxes] = {}
    for detection in filter(None, map(read_detection, items)):
        name = names_of_ids.get(detection.image, detection.image)
        source = sources.get(name, sources.get(str(name).rpartition('/')[2]))
        if source is not None:
            place = found.setdefault(source, [])
        elif video:
            frame = Json(name, f'{items.place}, image_id').whole_number()
            place = found.setdefault(video, {}).setdefault(frame, [])
        if (source or video) and detection.score >= MIN_SCORE:
            place.append([*detection.box, detection.score])
    return found
