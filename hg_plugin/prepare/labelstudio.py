"""Read keypoints of Label Studio, exported as JSON."""

import re
from pathlib import Path
from urllib.parse import unquote

from hg_plugin.utils.json_files import Json, read_json

from .exported import Export


def read_labelstudio(export: Export, file: Path) -> None:
    """Read a JSON file of tasks with keypoints and rectangles.

    A label is the name of a keypoint. A keypoint belongs to the rectangle that is its parent, or that a
    relation joins it with, or else around it. Coordinates are percentages of the image's size.
    """
    for task in read_json(file, 'a list of tasks'):
        data = task['data']
        address = next((value for _, value in data.items() if isinstance(value.value, str)), data)
        # the path of a local file, or the name of an uploaded one without the random prefix of its upload
        image = unquote(str(address.value).rpartition('?d=')[2])
        image = re.sub(r'^.*/upload/(\d+/)?([0-9a-f]{8}-)?', '', image)
        # the last one of several annotators is the newest
        annotations = [one for one in task['annotations'] if not one.value.get('was_cancelled')]
        if annotations:
            _read_image(export, image, annotations[-1]['result'])
        else:
            export.left_out['tasks without annotations'].append(task.place)


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
    points = []
    for one in keypoints:
        value = one['value']
        (name,) = value['keypointlabels'].value[:1] or ['']
        x, y = (value[key].number() / 100 for key in 'xy')
        points.append((str(name), (x, y, 2), parents.get(one['id'].value, one.value.get('parentID'))))
    export.add_loose(image, points, boxes, shares=True)
