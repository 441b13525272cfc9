"""Read keypoints in the layout of COCO, as CVAT, Roboflow, Label Studio and COCO Annotator export them."""

from pathlib import Path

import numpy as np

from hg_plugin.utils.json_files import read_json

from .exported import Export, Person


def read_coco(path: Path) -> Export:
    """Read a JSON file, or all of a folder, whose categories name the keypoints."""
    export = Export()
    for file in [path] if path.is_file() else sorted(path.rglob('*.json')):
        content = read_json(file, 'images, annotations and categories')
        if not content.is_object or not {'images', 'annotations', 'categories'} <= content.value.keys():
            export.left_out['JSON files without images, annotations and categories'].append(str(file))
            continue
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
            problem = (
                'annotations of images that are not listed' if image is None
                else 'annotations without keypoints' if not len(values)
                else 'annotations of crowds' if annotation.value.get('iscrowd')
                else 'annotations whose category names other keypoints' if len(values) != 3 * len(names)
                else None
            )  # fmt: skip
            if problem or image is None:
                export.left_out[str(problem)].append(annotation.place)
                continue
            points = {name: tuple(point) for name, point in zip(names, values.reshape(-1, 3).tolist())}
            box = annotation.get('bbox')
            x, y, width, height = box.numbers(4) if box else (0, 0, 0, 0)
            size = [float(image.value.get(key) or 0) for key in ('width', 'height')]
            export.add(
                Person(
                    str(image['file_name'].value),
                    points,
                    (x, y, x + width, y + height) if width > 0 and height > 0 else None,
                    tuple(size) if all(size) else None,
                )
            )
    return export
