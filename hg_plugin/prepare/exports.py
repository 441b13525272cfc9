"""Make a dataset in the layout of COCO from the export of an annotation tool."""

import functools
import json
import os
import textwrap
from collections import defaultdict
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
from .metainfo import metainfo_of, metainfo_text, partners_of
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
    path, out = Path(path), Path(out).resolve()
    if not path.exists() or path.suffix == '.zip':
        raise InputError(f'{path} {"has to be unpacked first" if path.exists() else "does not exist"}.')
    export, (pattern, read) = Export(), READERS[kind]
    for file in [path] if path.is_file() else sorted(path.rglob(pattern)):
        try:
            read(export, file)
        except InputError as error:
            if file == path:
                raise
            export.left_out['files that cannot be used'].append(textwrap.shorten(str(error), 150).rstrip('.'))
    folder = Path(images) if images else path if path.is_dir() else path.parent
    files, annotations = _usable(export, folder.resolve(), out)
    if len(files) < 2:
        left_out = export.left_out.items()
        reasons = ''.join(f'; {len(places)} {reason}, such as {places[0]}' for reason, places in left_out)
        raise InputError(
            f'{path} has {len(export.persons)} persons and {len(files)} usable images, but training and '
            f'validation need two{reasons}.'
        )
    names = {name: index for index, name in enumerate(export.names)}
    skeleton = [[names[name] + 1 for name in link] for link in dict.fromkeys(export.links)]
    category = dict(id=1, name='person', keypoints=[*names], skeleton=skeleton)
    num_val = min(max(round(val * len(files)), 1), len(files) - 1)
    chosen = {files[index]['id'] for index in np.random.default_rng(0).permutation(len(files))[:num_val]}
    persons, images_of = {}, {}
    for split in ('train', 'val'):
        content = dict(
            images=[file for file in files if (file['id'] in chosen) == (split == 'val')],
            annotations=[each for each in annotations if (each['image_id'] in chosen) == (split == 'val')],
            categories=[category],
        )
        persons[split], images_of[split] = len(content['annotations']), len(content['images'])
        with atomic_write(out / f'annotations/{split}.json') as written:
            written.write(json.dumps(content, indent=1).encode())
    partners = export.partners or partners_of(names)
    with atomic_write(out / 'metainfo.py') as written:
        written.write(metainfo_text(metainfo_of(out.name, [*names], export.links, partners)).encode())
    return Prepared(
        persons,
        images_of,
        {name: sum(each['keypoints'][3 * i + 2] > 0 for each in annotations) for name, i in names.items()},
        [(name, other) for name, other in partners.items() if names[name] < names[other]],
        dict(export.left_out),
    )


class _Unusable(Exception):
    """Why a person cannot be used, in the plural."""


def _usable(export: Export, folder: Path, out: Path) -> tuple[list[dict], list[dict]]:
    """Images and annotations of COCO. Persons that cannot be used go to ``left_out``, with the reason."""
    files = defaultdict(list)  # by the end of their paths, of any length
    for file in sorted(folder.rglob('*')):
        if file.suffix.lower() in IMAGE_SUFFIXES:
            below = file.relative_to(folder)
            for parts in (below.parts, below.with_suffix('').parts):  # labels of YOLO name no suffix
                for start in range(len(parts)):
                    files[parts[start:]].append(file)
    images: dict[Path, dict] = {}
    annotations: list[dict] = []
    for person in export.persons:
        parts = Path(person.image).parts
        ends = (parts[start:] for start in range(len(parts)))
        candidates = next((files[end] for end in ends if end in files), [])
        try:
            if len(candidates) != 1:
                what = 'may be one of several of its name' if candidates else 'is not there'
                raise _Unusable(f'persons whose image {what}')
            (file,) = candidates
            name, (width, height) = Path(os.path.relpath(file, out)).as_posix(), _image_size(file)
            annotation = _annotation(person, (width, height), export)
        except _Unusable as reason:
            export.left_out[str(reason)].append(person.image)
        else:
            image = dict(id=len(images) + 1, file_name=name, width=width, height=height)
            number = images.setdefault(file, image)['id']
            annotations.append(dict(id=len(annotations) + 1, image_id=number, category_id=1, **annotation))
    return [images[file] for file in sorted(images)], annotations


@functools.cache
def _image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image that stands upright, as annotation tools show it."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(EXIF_ORIENTATION, 1) >= 5
            return image.size[::-1] if turned else image.size
    except OSError as error:
        raise _Unusable('persons whose image cannot be read') from error


def _annotation(person: Person, size: tuple[int, int], export: Export) -> dict:
    """What COCO says of a person."""
    if person.size and person.size != size:
        raise _Unusable('persons whose image had another size when it was annotated')
    unit = size if person.shares else (1, 1)
    keypoints = np.array([person.points.get(name, (0, 0, 0)) for name in export.names]) * [*unit, 1]
    labeled = keypoints[:, 2] > 0
    inside = ((keypoints[:, :2] >= 0) & (keypoints[:, :2] <= size)).all(axis=1)  # NaN is not
    for index in np.flatnonzero(labeled & ~inside):
        export.left_out['keypoints outside of their image'].append(f'{person.image}, {export.names[index]}')
    labeled &= inside
    keypoints[~labeled] = 0
    if not labeled.any():
        raise _Unusable('persons without a labeled keypoint')
    low, high = keypoints[labeled, :2].min(axis=0), keypoints[labeled, :2].max(axis=0)
    margin = MARGIN * (high - low).max()
    box = np.reshape(person.box, (2, 2)) * unit if person.box else np.stack([low - margin, high + margin])
    low, high = np.clip(box, 0, size).round(2)
    if not (high > low).all():
        raise _Unusable('persons whose box, or that of their keypoints, has no area')
    return dict(
        iscrowd=0,
        bbox=[*low.tolist(), *(high - low).round(2).tolist()],
        area=(high - low).prod().round(2).item(),
        num_keypoints=labeled.sum().item(),
        keypoints=keypoints.round(2).ravel().tolist(),
    )
