"""Read keypoints of Label Studio, exported as JSON."""

import re
from pathlib import Path
from urllib.parse import unquote

from hg_plugin.utils.json_files import Json, read_json

from .exported import Export


def read_labelstudio(export: Export, file: Path) -> None:
    """Read a JSON file of tasks with keypoints and rectangles.

    A label is the name of a keypoint. A keypoint belongs to the rectangle that is its parent, or else around
    it. Coordinates are percentages of the image's size.
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
    points, boxes = [], []
    for one in results:
        kind = one['type'].value
        if kind not in ('keypointlabels', 'rectanglelabels'):
            export.left_out[f'results of the type {kind}'].append(one.place)
            continue
        value = one['value']
        x, y = (value[key].number() / 100 for key in 'xy')
        if kind == 'keypointlabels':
            (name,) = value['keypointlabels'].value[:1] or ['']
            points.append((str(name), (x, y, 2), one.value.get('parentID')))
        else:
            width, height = (value[key].number() / 100 for key in ('width', 'height'))
            boxes.append(((x, y, x + width, y + height), one['id'].value))
    export.add_loose(image, points, boxes, shares=True)
