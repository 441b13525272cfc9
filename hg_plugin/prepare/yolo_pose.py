"""Read labels of Ultralytics' pose networks: a text file an image, and a YAML file of the keypoints."""

from pathlib import Path

import numpy as np
import yaml

from hg_plugin.utils.errors import InputError

from .exported import Export, Person


def read_yolo_pose(path: Path) -> Export:
    """Read a folder with ``data.yaml``, or that file, and all text files in folders called ``labels`` below.

    Keypoints have the names of ``kpt_names`` or else numbers; ``flip_idx`` pairs them.

    Raises:
        InputError: There is no such YAML file.
    """
    files = [path] if path.is_file() else [*sorted(path.glob('*.yaml')), *sorted(path.glob('*.yml'))]
    described = [content for file in files if 'kpt_shape' in (content := _read_yaml(file))]
    if len(described) != 1:
        raise InputError(f'{path} has {len(described)} YAML files with kpt_shape; give the one to use.')
    (content,), folder = described, path.parent if path.is_file() else path
    count, values = content['kpt_shape']
    names = content.get('kpt_names') or {}
    names = [*names.values()][0] if isinstance(names, dict) and names else names
    names = [str(name) for name in names] or [f'keypoint_{index}' for index in range(count)]
    export = Export(names=names)
    export.partners = {name: names[other] for name, other in zip(names, content.get('flip_idx') or ())}
    for file in sorted(folder.rglob('*.txt')):
        if 'labels' not in file.parts:
            continue
        # images/ beside labels/, and any suffix
        image = '/'.join('images' if part == 'labels' else part for part in file.relative_to(folder).parts)
        for number, line in enumerate(file.read_text('utf-8-sig').splitlines(), start=1):
            try:
                row = np.array(line.split(), float)
                points = row[5:].reshape(count, values)
            except ValueError:
                export.left_out[f'lines that are not 5 and {count} times {values} numbers'].append(
                    f'{file}, line {number}'
                )
                continue
            visible = points[:, 2] if values == 3 else 2 * (points > 0).any(axis=1)
            (x, y), half = row[1:3], row[3:5] / 2
            box = x - half[0], y - half[1], x + half[0], y + half[1]
            xyv = np.column_stack([points[:, :2], visible]).tolist()
            labeled = {name: tuple(point) for name, point in zip(names, xyv)}
            export.add(Person(str(Path(image).with_suffix('')), labeled, tuple(map(float, box)), shares=True))
    return export


def _read_yaml(file: Path) -> dict:
    try:
        content = yaml.safe_load(file.read_text('utf-8-sig'))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f'{file} cannot be read: {error}.') from error
    return content if isinstance(content, dict) else {}
