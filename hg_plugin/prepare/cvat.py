"""Read keypoints of CVAT, exported as 'CVAT for images 1.1'."""

from pathlib import Path
from xml.etree import ElementTree

from hg_plugin.utils.errors import InputError

from .exported import Export, Person


def read_cvat(path: Path) -> Export:
    """Read ``annotations.xml``, or all XML files of a folder.

    A skeleton is a person. Points outside of a skeleton are named by their labels; those of one group, or in
    one box, are a person.

    Raises:
        InputError: A file is no such XML file.
    """
    export = Export()
    for file in [path] if path.is_file() else sorted(path.rglob('*.xml')):
        try:
            root = ElementTree.parse(file).getroot()
            for label in root.iterfind('.//label[svg]'):
                export.links += _links(label.findtext('svg') or '')
        except (OSError, ElementTree.ParseError) as error:
            raise InputError(
                f"{file} cannot be read ({error}); give annotations.xml of 'CVAT for images 1.1'."
            ) from error
        if root.find('track') is not None:
            raise InputError(f"{file} has tracks of a video; export it as 'CVAT for images 1.1'.")
        for image in root.iterfind('image'):
            _read_image(export, image)
    return export


def _links(svg: str) -> list[tuple[str, str]]:
    """The edges of a skeleton's drawing, by the names of their ends."""
    parts = [*ElementTree.fromstring(f'<svg>{svg}</svg>').iter()]
    names = {part.get('data-node-id'): part.get('data-label-name') for part in parts}
    edges = [(names.get(part.get('data-node-from')), names.get(part.get('data-node-to'))) for part in parts]
    return [(start, end) for start, end in edges if start and end]


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
