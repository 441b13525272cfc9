"""Check the description of a dataset's keypoints, which MMPose takes as it is, slips included."""

import difflib
import os.path as osp
from collections.abc import Iterator

from mmengine.config import Config

from hg_plugin.utils.config import DATASET, LOADER, parts_of


def metainfo_problems(cfg: Config) -> Iterator[str]:
    """What is wrong with the ``metainfo`` of all datasets of a config."""
    for place, part in parts_of(cfg, LOADER + DATASET + r'\.metainfo').items():
        file = part.get('from_file')
        if file and not osp.isfile(file):
            continue  # one of MMPose's
        if file:
            place, part = file, Config.fromfile(file).get('dataset_info') or {}
        if isinstance(part.get('keypoint_info'), dict):  # else MMPose says so
            yield from (f'{place}: {problem}.' for problem in _problems(part))


def _problems(metainfo: dict) -> Iterator[str]:
    keypoints = metainfo['keypoint_info']
    count = len(keypoints)
    if [*keypoints] != [*range(count)]:
        yield f'the keys of keypoint_info are {[*keypoints]}; give 0 to {count - 1}, in order'
    names = [keypoint.get('name') for keypoint in keypoints.values()]
    partner = dict(zip(names, (keypoint.get('swap') for keypoint in keypoints.values())))
    for key, keypoint in keypoints.items():
        name, swap = keypoint.get('name'), keypoint.get('swap')
        if names.count(name) > 1:
            yield f'{names.count(name)} keypoints have the name {name!r}'
        if keypoint.get('id', key) != key:
            yield f'{name!r} has the key {key} and the id {keypoint["id"]}; make them equal'
        if swap and swap not in names:
            yield f'swap of {name!r} is {_unknown(swap, names)}'
        elif swap and swap != name and partner[swap] != name:
            yield f'{name!r} swaps with {swap!r}, which swaps with {partner[swap]!r}; name them as pairs'
    for key, link in (metainfo.get('skeleton_info') or {}).items():
        for name in link.get('link', ()):
            if name not in names:
                yield f'link {key} of skeleton_info names {_unknown(name, names)}'
    for key in ('joint_weights', 'sigmas'):
        values = metainfo.get(key)
        if values is not None and len(values) not in (0, count):
            yield f'{key} has {len(values)} values for {count} keypoints'


def _unknown(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(str(name), names, n=1)
    return f'{name!r}, which is no keypoint' + (f' (did you mean {near[0]!r}?)' if near else '')
