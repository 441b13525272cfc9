"""Read keypoints of CVAT, exported as 'CVAT for images 1.1'."""

from pathlib import Path
from xml.etree import ElementTree

from hg_plugin.utils.errors import InputError

from .exported import Export, Person


def read_cvat(export: Export, file: Path) -> None:
    """Read ``annotations.xml``.

    A skeleton is a person. Points outside of a skeleton are named by their labels; those of one group, or in
    one box, are a person.
    """
    try:
        root = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(
            f"{file} cannot be read ({error}); give annotations.xml of 'CVAT for images 1.1'."
        ) from error
    if root.find('track') is not None:
        raise InputError(f"{file} has tracks of a video; export it as 'CVAT for images 1.1'.")
    for label in root.iterfind('.//label[svg]'):
        # the drawing of a skeleton, whose edges name their ends by numbers
        parts = [*ElementTree.fromstring(f'<svg>{label.findtext("svg")}</svg>').iter()]
        names = {part.get('data-node-id'): part.get('data-label-name') for part in parts}
        for part in parts:
            start, end = (names.get(part.get(f'data-node-{side}')) for side in ('from', 'to'))
            if start and end:
                export.links.append((start, end))
    for image in root.iterfind('image'):
        _read_image(export, image)


def _read_image(export: Export, image: ElementTree.Element) -> None:
    name, size = image.get('name', ''), tuple(float(image.get(key, 0)) for key in ('width', 'height'))
    boxes = []
    for box in image.iterfind('box'):
        left, top, right, bottom = (float(box.get(key, 0)) for key in ('xtl', 'ytl', 'xbr', 'ybr'))
        boxes.append(((left, top, right, bottom), box.get('group_id')))
    by_group = {group: box for box, group in boxes if group}
    for skeleton in image.iterfind('skeleton'):
        points = {part.get('label', ''): _point(part) for part in skeleton.iterfind('points')}
        export.add(Person(name, points, by_group.get(skeleton.get('group_id')), size))
    loose = []
    for part in image.iterfind('points'):
        if ';' in part.get('points', ''):
            export.left_out['shapes of several points, which have no names'].append(name)
        else:
            loose.append((part.get('label', ''), _point(part), part.get('group_id')))
    if loose:
        export.add_loose(name, loose, boxes, size=size)


def _point(part: ElementTree.Element) -> tuple[float, float, float]:
    x, y = map(float, part.get('points', '').split(','))
    return x, y, 0 if part.get('outside') == '1' else 1 if part.get('occluded') == '1' else 2
