"""Make a dataset in the layout of COCO from the export of an annotation tool."""

import functools
import json
import os
from collections import Counter, defaultdict
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from hg_plugin.inference.inputs import IMAGE_SUFFIXES
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.images import EXIF_ORIENTATION

from .coco import read_coco
from .cvat import read_cvat
from .exported import Export, Person
from .labelme import read_labelme
from .labelstudio import read_labelstudio
from .metainfo import metainfo_of, metainfo_text
from .yolo_pose import read_yolo_pose

# the files of an export, and what reads one of them
READERS = {
    'coco': ('*.json', read_coco),
    'cvat': ('*.xml', read_cvat),
    'labelme': ('*.json', read_labelme),
    'labelstudio': ('*.json', read_labelstudio),
    'yolo-pose': ('*.y*ml', read_yolo_pose),
}
# of the longer side of the box around the keypoints, on each side, for hands, feet and hair
MARGIN = 0.05


class Prepared(NamedTuple):
    """What :func:`prepare_export` has written.

    Attributes:
        persons: Their number by split.
        images: The number of images by split.
        keypoints: How often each keypoint is labeled.
        pairs: Keypoints that change places in a flipped image.
        left_out: By reason, where what could not be used is.
    """

    persons: dict[str, int]
    images: dict[str, int]
    keypoints: dict[str, int]
    pairs: list[tuple[str, str]]
    left_out: dict[str, list[str]]


def prepare_export(
    kind: str,
    path: str | PathLike,
    out: str | PathLike,
    *,
    images: str | PathLike | None = None,
    val: float = 0.2,
) -> Prepared:
    """Write ``annotations/train.json``, ``annotations/val.json`` and ``metainfo.py`` to a folder.

    Images stay where they are: their paths in the annotations are relative to ``out``.

    Args:
        kind: One of :data:`READERS`.
        path: The export, a file or a folder, in which files that cannot be used are left out.
        out: The folder to write.
        images: The folder of the images. Defaults to None, which means the export's.
        val: The share of the images that validate, chosen at random, the same at every call. Defaults to 0.2.

    Raises:
        InputError: The export cannot be read, or has less than two usable images.
    """
    path, out = Path(path), Path(out)
    if not path.exists() or path.suffix == '.zip':
        raise InputError(f'{path} {"has to be unpacked first" if path.exists() else "does not exist"}.')
    export, (pattern, read) = Export(), READERS[kind]
    for file in [path] if path.is_file() else sorted(path.rglob(pattern)):
        try:
            read(export, file)
        except InputError as error:
            if file == path:
                raise
            export.left_out['files that cannot be used'].append(str(error))
    usable = _usable(export, Path(images) if images else path if path.is_dir() else path.parent)
    names = sorted({image for image, _ in usable})
    if len(names) < 2:
        left_out = export.left_out.items()
        reasons = ''.join(f'; {len(places)} {reason}, such as {places[0]}' for reason, places in left_out)
        raise InputError(
            f'{path} has {len(export.persons)} persons and {len(names)} usable images, but training and '
            f'validation need two{reasons}.'
        )
    num_val = min(max(round(val * len(names)), 1), len(names) - 1)
    chosen = {names[index] for index in np.random.default_rng(0).permutation(len(names))[:num_val]}
    metainfo = metainfo_of(out.resolve().name, export.names, export.links, export.partners)
    splits = dict(
        train=[each for each in usable if each[0] not in chosen],
        val=[each for each in usable if each[0] in chosen],
    )
    for split, persons in splits.items():
        content = json.dumps(_coco(persons, export, out.resolve()), indent=1)
        with atomic_write(out / f'annotations/{split}.json') as file:
            file.write(content.encode())
    with atomic_write(out / 'metainfo.py') as file:
        file.write(metainfo_text(metainfo).encode())
    labeled = Counter(name for _, person in usable for name, point in person.points.items() if point[2])
    infos = metainfo['keypoint_info'].values()
    return Prepared(
        {split: len(persons) for split, persons in splits.items()},
        {split: len({image for image, _ in persons}) for split, persons in splits.items()},
        {name: labeled[name] for name in export.names},
        [(info['name'], info['swap']) for info in infos if info['swap'] in export.names[info['id'] + 1 :]],
        dict(export.left_out),
    )


def _usable(export: Export, folder: Path) -> list[tuple[Path, Person]]:
    """Persons in pixels, with boxes, and their images. Others go to ``left_out``, with the reason."""
    files = defaultdict(list)  # by the end of their paths, of any length
    for file in sorted(folder.resolve().rglob('*')):
        if file.suffix.lower() in IMAGE_SUFFIXES:
            for parts in (file.parts, file.with_suffix('').parts):  # labels of YOLO name no suffix
                for start in range(len(parts)):
                    files[parts[start:]].append(file)
    usable = []
    for person in export.persons:
        parts = Path(person.image).parts
        ends = (parts[start:] for start in range(len(parts)))
        candidates = next((files[end] for end in ends if end in files), [])
        try:
            if len(candidates) != 1:
                what = 'may be one of several of its name' if candidates else 'is not there'
                raise _Unusable(f'persons whose image {what}')
            size = _image_size(candidates[0])
            if person.size and person.size != size:
                raise _Unusable('persons whose image had another size when it was annotated')
            usable.append((candidates[0], _in_pixels(person, size, export)))
        except _Unusable as reason:
            export.left_out[str(reason)].append(person.image)
    return usable


class _Unusable(Exception):
    """Why a person cannot be used, in the plural."""


@functools.cache
def _image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image that stands upright, as annotation tools show it."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(EXIF_ORIENTATION, 1) >= 5
            return image.size[::-1] if turned else image.size
    except OSError as error:
        raise _Unusable('persons whose image cannot be read') from error


def _in_pixels(person: Person, size: tuple[int, int], export: Export) -> Person:
    unit = size if person.shares else (1, 1)
    points = {}
    for name, (*place, visible) in person.points.items():
        xy = np.array(place) * unit
        if visible > 0 and not ((xy >= 0) & (xy <= size)).all():  # NaN, too
            export.left_out['keypoints outside of their image'].append(f'{person.image}, {name}')
        elif visible > 0:
            points[name] = (*xy.tolist(), visible)
    if not points:
        raise _Unusable('persons without a labeled keypoint')
    labeled = np.array([*points.values()])[:, :2]
    low, high = labeled.min(axis=0), labeled.max(axis=0)
    margin = MARGIN * (high - low).max()
    box = np.reshape(person.box, (2, 2)) * unit if person.box else np.stack([low - margin, high + margin])
    box = np.clip(box, 0, size)
    if not (box[1] > box[0]).all():
        raise _Unusable('persons whose box, or that of their keypoints, has no area')
    return person._replace(points=points, box=tuple(box.ravel().tolist()))


def _coco(persons: list[tuple[Path, Person]], export: Export, out: Path) -> dict:
    ids = {image: index for index, image in enumerate(dict.fromkeys(image for image, _ in persons), start=1)}
    images = []
    for image, index in ids.items():
        width, height = _image_size(image)
        name = Path(os.path.relpath(image, out)).as_posix()
        images.append(dict(id=index, file_name=name, width=width, height=height))
    annotations = []
    for index, (image, person) in enumerate(persons, start=1):
        left, top, right, bottom = (round(side, 2) for side in person.box or ())
        width, height = round(right - left, 2), round(bottom - top, 2)
        points = [person.points.get(name, (0, 0, 0)) for name in export.names]
        annotations.append(
            dict(
                id=index,
                image_id=ids[image],
                category_id=1,
                iscrowd=0,
                bbox=[left, top, width, height],
                area=round(width * height, 2),
                num_keypoints=len(person.points),
                keypoints=[round(value, 2) for point in points for value in point],
            )
        )
    numbers = {name: index for index, name in enumerate(export.names, start=1)}
    skeleton = [[numbers[name] for name in link] for link in dict.fromkeys(export.links)]
    category = dict(id=1, name='person', keypoints=export.names, skeleton=skeleton)
    return dict(images=images, annotations=annotations, categories=[category])
