"""Read labels of Ultralytics' pose networks: a text file an image, and a YAML file of the keypoints."""

from pathlib import Path

import numpy as np
import yaml

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.json_files import Json

from .exported import Export, Person


def read_yolo_pose(export: Export, file: Path) -> None:
    """Read ``data.yaml`` and all text files in folders called ``labels`` beside and below it.

    Keypoints have the names of ``kpt_names`` or else numbers; ``flip_idx`` pairs them.
    """
    try:
        content = Json(yaml.safe_load(file.read_text('utf-8-sig')), str(file))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f'{file} cannot be read: {error}.') from error
    count, values = map(int, content['kpt_shape'].numbers(2))
    if export.names:
        raise InputError(f'{file} is the second YAML file with kpt_shape; give the one to use.')
    names = content.value.get('kpt_names') or [f'keypoint_{index}' for index in range(count)]
    names = [*map(str, [*names.values()][0] if isinstance(names, dict) else names)]
    export.add_names(names)
    export.partners = {name: names[other] for name, other in zip(names, content.value.get('flip_idx') or ())}
    for labels in sorted(file.parent.rglob('*.txt')):
        folders = labels.relative_to(file.parent).parts
        if 'labels' not in folders:
            continue
        # images/ beside labels/, and any suffix
        image = '/'.join('images' if part == 'labels' else part for part in folders).removesuffix('.txt')
        for number, line in enumerate(labels.read_text('utf-8-sig').splitlines(), start=1):
            try:
                row = np.array(line.split(), float)
                points = row[5:].reshape(count, values)
            except ValueError:
                reason = f'lines that are not 5 and {count} times {values} numbers'
                export.left_out[reason].append(f'{labels}, line {number}')
                continue
            visible = points[:, 2] if values == 3 else 2 * (points > 0).any(axis=1)
            xyv = np.column_stack([points[:, :2], visible]).tolist()
            box = np.concatenate([row[1:3] - row[3:5] / 2, row[1:3] + row[3:5] / 2]).tolist()
            export.add(Person(image, dict(zip(names, map(tuple, xyv))), tuple(box), shares=True))
