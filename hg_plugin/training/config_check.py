"""Check a config for plausible mistakes before anything is built from it."""

import ast
import difflib
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from hg_plugin.compat.torch import torch_before
from hg_plugin.utils.config import DATASET, LOADER, parts_of
from hg_plugin.utils.errors import InputError


def check_config(cfg: Config) -> None:
    """Check a config before anything is built from it.

    Raises:
        InputError: The metainfo of a dataset has a slip; the installed torch cannot combine two options; or
            the config's file sets ``codec`` or ``data_root``, which its base had copied before.
    """
    for place, part in parts_of(cfg, LOADER + DATASET + r'\.metainfo').items():
        file = part.get('from_file')
        if file and Path(file).is_file():  # another one is MMPose's
            place, part = file, Config.fromfile(file).get('dataset_info') or {}
        for slip in metainfo_slips(part):
            raise InputError(f'{place}: {slip}.')
    # torch 2.7 and older count every batch twice in the running statistics; 2.8 was not tried
    with_cp = [part.get('with_cp') for part in parts_of(cfg, r'model\.backbone').values()]
    if cfg.get('compile') and any(with_cp) and torch_before('2.9'):
        raise InputError('compile and model.backbone.with_cp need torch 2.9 together; leave one of them out.')
    own = ast.parse(Path(cfg.filename).read_text('utf-8-sig')).body if cfg.filename else []
    targets = [target for node in own if isinstance(node, ast.Assign) for target in node.targets]
    assigned = {getattr(target, 'id', None) for target in targets}
    if '_base_' not in assigned:  # such as a config that a run has written
        return
    if 'codec' in assigned and cfg.codec not in parts_of(cfg, r'model\..+').values():
        raise InputError(f'{cfg.filename} sets codec, which nothing reads; set model.codec, too.')
    roots = [dataset.get('data_root') for dataset in parts_of(cfg, LOADER + DATASET).values()]
    if 'data_root' in assigned and not any(str(root).startswith(cfg.data_root) for root in roots):
        raise InputError(
            f"{cfg.filename} sets data_root to '{cfg.data_root}', but no dataset has it; set the data_root "
            'of the datasets, too.'
        )


def metainfo_slips(metainfo: dict) -> Iterator[str]:
    """What is wrong with a description of keypoints, which MMPose takes as it is."""
    keypoints = metainfo.get('keypoint_info')
    if not isinstance(keypoints, dict):  # MMPose says so
        return
    count, names = len(keypoints), [keypoint.get('name') for keypoint in keypoints.values()]
    partners = dict(zip(names, (keypoint.get('swap') for keypoint in keypoints.values())))

    def unknown(name):
        near = difflib.get_close_matches(str(name), names, n=1)
        return f'{name!r}, which is no keypoint' + (f' (did you mean {near[0]!r}?)' if near else '')

    if [*keypoints] != [*range(count)]:
        yield f'the keys of keypoint_info are {[*keypoints]}; give 0 to {count - 1}, in order'
    for key, keypoint in keypoints.items():
        name, swap = keypoint.get('name'), keypoint.get('swap')
        if names.count(name) > 1:
            yield f'{names.count(name)} keypoints have the name {name!r}'
        if keypoint.get('id', key) != key:
            yield f'{name!r} has the key {key} and the id {keypoint["id"]}; make them equal'
        if swap and swap not in names:
            yield f'swap of {name!r} is {unknown(swap)}'
        elif swap and swap != name and partners[swap] != name:
            yield f'{name!r} swaps with {swap!r}, which swaps with {partners[swap]!r}; name them as pairs'
    for key, link in (metainfo.get('skeleton_info') or {}).items():
        for name in {*link.get('link', ())} - {*names}:
            yield f'link {key} of skeleton_info names {unknown(name)}'
    for key in ('joint_weights', 'sigmas'):
        if len(metainfo.get(key) or ()) not in (0, count):
            yield f'{key} has {len(metainfo[key])} values for {count} keypoints'
