"""Read keypoints of Label Studio, exported as JSON."""

import re
from pathlib import Path
from urllib.parse import unquote

from hg_plugin.utils.json_files import Json, read_json

from .exported import Export


def read_labelstudio(path: Path) -> Export:
    """Read a JSON file, or all of a folder, of tasks with keypoints and rectangles.

    A label is the name of a keypoint. A keypoint belongs to the rectangle that is its parent, or that a
    relation joins it with, or else around it. Coordinates are percentages of the image's size.
    """
    export = Export()
    for file in [path] if path.is_file() else sorted(path.rglob('*.json')):
        for task in read_json(file, 'a list of tasks'):
            data = task['data']
            image = next((value for _, value in data.items() if isinstance(value.value, str)), data)
            # the last one of several annotators is the newest
            annotations = [one for one in task['annotations'] if not one.value.get('was_cancelled')]
            if not annotations:
                export.left_out['tasks without annotations'].append(task.place)
                continue
            _read_image(export, file_name(str(image.value)), annotations[-1]['result'])
    return export


def file_name(address: str) -> str:
    """The name of an uploaded file, without the random prefix of its upload, or the path of a local one."""
    name = unquote(address.rpartition('?d=')[2])
    return re.sub(r'^.*/upload/(\d+/)?([0-9a-f]{8}-)?', '', name)


def _read_image(export: Export, image: str, results: Json) -> None:
    parents, keypoints, boxes = {}, [], []
    rectangles = {one['id'].value for one in results if one.value.get('type') == 'rectanglelabels'}
    for one in results:
        kind = one['type'].value
        if kind == 'relation':
            ends = one['from_id'].value, one['to_id'].value
            parents |= {start: end for start, end in (ends, ends[::-1]) if end in rectangles}
        elif kind == 'keypointlabels':
            keypoints.append(one)
        elif kind == 'rectanglelabels':
            value = one['value']
            x, y, width, height = (value[key].number() / 100 for key in ('x', 'y', 'width', 'height'))
            boxes.append(((x, y, x + width, y + height), one['id'].value))
        else:
            export.left_out[f'results of the type {kind}'].append(one.place)
    used = {one['id'].value: parents.get(one['id'].value, one.value.get('parentID')) for one in keypoints}
    points = []
    for one in keypoints:
        value = one['value']
        (name,) = value['keypointlabels'].value[:1] or ['']
        x, y = (value[key].number() / 100 for key in 'xy')
        points.append((str(name), (x, y, 2), used[one['id'].value]))
    export.add_loose(image, points, boxes, shares=True)
