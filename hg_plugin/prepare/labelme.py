"""Read keypoints of labelme: a JSON file an image, with points and rectangles."""

from pathlib import Path, PureWindowsPath

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.json_files import Json, read_json

from .exported import Export


def read_labelme(path: Path) -> Export:
    """Read a JSON file, or all of a folder. A label is the name of a keypoint, a ``group_id`` a person."""
    export = Export()
    for file in [path] if path.is_file() else sorted(path.rglob('*.json')):
        try:
            content = read_json(file, 'shapes of labelme')
            if not content.is_object or 'shapes' not in content.value:
                export.left_out['JSON files without shapes'].append(str(file))
                continue
            _read_image(export, content)
        except InputError as error:
            export.left_out['JSON files that cannot be used'].append(str(error))
    return export


def _read_image(export: Export, content: Json) -> None:
    image = PureWindowsPath(str(content['imagePath'].value)).as_posix()  # either slash, of any system
    size = [content.get(key) for key in ('imageWidth', 'imageHeight')]
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
    sizes = tuple(side.number() for side in size if side)
    export.add_loose(image, points, boxes, size=sizes if len(sizes) == 2 else None)
