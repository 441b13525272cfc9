"""Read keypoints in the layout of COCO, as CVAT, Roboflow, Label Studio and COCO Annotator export them."""

from pathlib import Path

import numpy as np

from hg_plugin.utils.json_files import read_json

from .exported import Export, Person


def read_coco(export: Export, file: Path) -> None:
    """Read a JSON file whose categories name the keypoints."""
    content = read_json(file, 'images, annotations and categories')
    images = {image['id'].value: image for image in content['images']}
    categories = {}
    for category in content['categories']:
        names = categories[category['id'].value] = category.value.get('keypoints') or []
        export.add_names(names)
        for start, end in category.value.get('skeleton') or ():
            export.links.append((names[start - 1], names[end - 1]))
    for annotation in content['annotations']:
        values = np.ravel(np.array(annotation.value.get('keypoints') or [], float))
        names = categories.get(annotation['category_id'].value, [])
        image = images.get(annotation['image_id'].value)
        if image is None:
            export.left_out['annotations of images that are not listed'].append(annotation.place)
        elif not len(values):
            export.left_out['annotations without keypoints'].append(annotation.place)
        elif annotation.value.get('iscrowd'):
            export.left_out['annotations of crowds'].append(annotation.place)
        elif len(values) != 3 * len(names):
            export.left_out['annotations whose category names other keypoints'].append(annotation.place)
        else:
            points = {name: tuple(point) for name, point in zip(names, values.reshape(-1, 3).tolist())}
            bbox = annotation.get('bbox')
            x, y, width, height = bbox.numbers(4) if bbox else (0, 0, 0, 0)
            box = (x, y, x + width, y + height) if width > 0 and height > 0 else None
            size = tuple(float(image.value.get(key) or 0) for key in ('width', 'height'))
            export.add(Person(str(image['file_name'].value), points, box, size if all(size) else None))
