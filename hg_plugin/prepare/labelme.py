"""Read keypoints of labelme: a JSON file an image, with points and rectangles."""

from pathlib import Path, PureWindowsPath

from hg_plugin.utils.json_files import read_json

from .exported import Export


def read_labelme(export: Export, file: Path) -> None:
    """Read a JSON file. A label is the name of a keypoint, a ``group_id`` a person."""
    content = read_json(file, 'shapes of labelme')
    points, boxes = [], []
    for shape in content['shapes']:
        kind, group = shape.value.get('shape_type', 'point'), shape.value.get('group_id')
        corners = [corner.numbers(2) for corner in shape['points']]
        if kind == 'point':
            points.append((str(shape['label'].value), (*corners[0], 2), group))
        elif kind == 'rectangle':
            xs, ys = zip(*corners)
            boxes.append(((min(xs), min(ys), max(xs), max(ys)), group))
        else:
            export.left_out[f'shapes of the type {kind}'].append(shape.place)
    image = PureWindowsPath(str(content['imagePath'].value)).as_posix()  # either slash, of any system
    size = tuple(side.number() for key in ('imageWidth', 'imageHeight') if (side := content.get(key)))
    export.add_loose(image, points, boxes, size=size if len(size) == 2 else None)
