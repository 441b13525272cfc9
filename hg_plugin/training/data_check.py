"""Find everything that is wrong with the data of a config before a training does."""

import json
import os.path as osp
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from hg_plugin.datasets import MPIIPoseDataset
from hg_plugin.mpii_format import find_problems
from hg_plugin.utils.config import DATASET, LOADER, building, parts_of
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.images import MAX_SIDE, ImageError, captured_stderr, decode, read_regular_file
from hg_plugin.utils.progress import imap_with_progress

EMPTY = 'need at least one array'  # what MMEngine says of a dataset without samples
MIN_SIDE = 8  # pixels of an image in which a person can be seen
# a joint that is annotated outside of its image by more than this share of the person's box
MARGIN = 0.05
# joints that are further from the middle of a person's box than this share of its longer side, and those that
# are all within the other; nobody of MPII has more than half of the joints there, or all within 0.2
FAR = 1.0
SPOT = 0.15
# what libjpeg prints where it goes on with made-up pixels; other warnings are harmless
DAMAGE = (b'Corrupt JPEG data', b'Premature end of JPEG file')


@dataclass
class Finding:
    """Something wrong: ``bad`` is an error in training or testing, anything else is only suspicious."""

    dataset: str
    annotation: int | None
    image: str | None
    kind: str
    problem: str
    bad: bool = True


def check_data(cfg: Config, out: str, *, num_workers: int | None = None) -> int:
    """Check images and annotations of all datasets of a config, print a short list, and write a JSON file.

    Args:
        cfg: The config.
        out: The JSON file: ``datasets`` with their numbers of persons and images, and ``findings``, each with
            dataset, annotation, image, kind, problem and whether it is bad.
        num_workers: Processes. Defaults to None: one per CPU core.

    Returns:
        The number of bad findings. Suspicious ones are printed too, and do not count.

    Raises:
        InputError: The config has no datasets, or ``out`` cannot be written.
    """
    init_default_scope(cfg.get('default_scope', 'mmpose'))
    findings: list[Finding] = []
    persons: dict[str, list[dict]] = {}
    for part in parts_of(cfg, LOADER + DATASET).values():
        if not {'dataset', 'datasets'} & part.keys():
            _read(part, cfg, persons, findings)
    if not persons and not findings:
        raise InputError(f'{cfg.filename or "The config"} has no datasets to check.')
    sizes = _check_images(persons, findings, num_workers)
    for name, people in persons.items():
        for person in people:
            path = person['img_path']
            for found in _check_person(person, *sizes[path]) if path in sizes else ():
                findings.append(Finding(name, person['index'], path, *found))
    content = dict(
        datasets={
            name: dict(persons=len(people), images=len({person['img_path'] for person in people}))
            for name, people in persons.items()
        },
        findings=[asdict(finding) for finding in findings],
    )
    with atomic_write(out) as file:
        file.write(json.dumps(content, indent=1).encode())
    _print(content['datasets'], findings, out)
    return sum(finding.bad for finding in findings)


def _read(part: dict, cfg: Config, persons: dict[str, list[dict]], findings: list[Finding]) -> None:
    """Add a dataset's persons, or what is wrong with its annotations."""
    kind = part['type'] if isinstance(part['type'], str) else part['type'].__name__
    name = osp.join(part.get('data_root') or '', part.get('ann_file') or kind)
    if name in persons:  # validation and test are often the same
        return
    if kind == 'MPIIPoseDataset':
        metainfo = MPIIPoseDataset._load_metainfo(part.get('metainfo'))
        for index, problem, bad in find_problems(name, metainfo['num_keypoints']):
            findings.append(Finding(name, index, None, 'annotation', problem, bad))
        if any(finding.bad for finding in findings if finding.dataset == name):
            return  # no dataset can be made of it
    try:
        with building(cfg, 'dataset'):
            dataset = DATASETS.build({**part, 'pipeline': [], 'lazy_init': False})
    except InputError as error:
        problem = why_empty([part]) if EMPTY in str(error) else str(error)
        findings.append(Finding(name, None, None, 'dataset', problem))
        return
    people = persons[name] = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        keys = ('img_path', 'bbox', 'keypoints', 'keypoints_visible')
        people.append(dict(index=info.get('id', index), **{key: info.get(key) for key in keys}))


def why_empty(parts: Iterable[dict]) -> str:
    """Why none of the annotations in the layout of COCO that datasets of a config name can be used."""
    reasons = []
    for part in parts:
        path = Path(part.get('data_root') or '', part.get('ann_file') or '')
        content = json.loads(path.read_text('utf-8-sig')) if path.suffix == '.json' else None
        if isinstance(content, dict):
            annotations = content.get('annotations') or []
            counts = ''.join(f', {count} {why}' for why, count in Counter(map(_defect, annotations)).items())
            reasons.append(f'{path} has {len(annotations)} annotations{counts}')
    return f'no annotation can be used: {"; ".join(reasons) or "the datasets are empty"}.'


def _defect(annotation: dict) -> str:
    """Why MMPose leaves out an annotation."""
    if annotation.get('iscrowd'):
        return 'of crowds'
    if not annotation.get('num_keypoints', any(annotation.get('keypoints') or ())):
        return 'without keypoints'
    if min(annotation.get('bbox', ())[2:], default=0) <= 0:
        return 'without a box that has an area'
    return 'of images that are not listed'


def _check_images(persons: dict, findings: list[Finding], num_workers: int | None) -> dict[str, tuple]:
    """Decode every image once. Returns the sizes, width and height, of those that can be read."""
    users: dict[str, tuple[str, int]] = {}
    for name, people in persons.items():
        for person in people:
            users.setdefault(person['img_path'], (name, person['index']))
    sizes, paths, bad = {}, sorted(users), 0
    results = imap_with_progress(_check_image, paths, num_workers, 'images', lambda: f'{bad} bad')
    for path, (size, problem) in zip(paths, results):
        if size:
            sizes[path] = size
        if problem:
            bad += 1
            findings.append(Finding(*users[path], path, 'image', problem))
    return sizes


def _check_image(path: str) -> tuple[tuple[int, int] | None, str | None]:
    try:
        with captured_stderr() as printed:
            image = decode(read_regular_file(path), path)
            printed.seek(0)
            damage = next((line for line in printed if line.startswith(DAMAGE)), None)
    except ImageError as error:
        return None, str(error)
    if damage:
        return None, f'{path} is damaged ({damage.decode().strip()}); get it again, or leave it out.'
    height, width = image.shape[:2]
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_SIDE:
        return (width, height), f'{path} has {width}x{height} pixels.'
    return (width, height), None


def _check_person(person: dict, width: int, height: int) -> Iterator[tuple[str, str, bool]]:
    """Compare a person's joints with the box, and both with the size of the image.

    Yields:
        The kind of a finding, the problem, and whether it is bad.
    """
    if person['bbox'] is None:
        return
    size = np.array([width, height])
    box = np.asarray(person['bbox'], np.float64).reshape(-1, 4)[0]
    outside = f'outside of the image, {width}x{height} pixels'
    if (box[2:] <= 0).any() or (box[:2] >= size).any():
        yield 'box', f'the box {box.round(1).tolist()} is {outside}', True
    if person['keypoints'] is None:
        return
    joints = np.asarray(person['keypoints'], np.float64)[0, :, :2]
    annotated = np.asarray(person['keypoints_visible'])[0].reshape(len(joints), -1)[:, 0] > 0
    unknown = ~np.isfinite(joints).all(axis=1)
    if unknown.any():
        text = f'{unknown.sum()} joints, {(unknown & annotated).sum()} of them annotated, are NaN or null'
        yield 'joints', f'{text} instead of points', bool((unknown & annotated).any())
    center, side = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]).max()
    margin = MARGIN * side
    far = f'far outside of the box, {box.round(1).tolist()}'
    for wrong, where, most in (
        (((joints < -margin) | (joints > size - 1 + margin)).any(axis=1), outside, 1),
        (np.abs(joints - center).max(axis=1) > FAR * side, far, 0.5),
    ):
        wrong = np.flatnonzero(wrong & annotated)
        if len(wrong):
            text = f'{len(wrong)} of {annotated.sum()} annotated joints, {wrong.tolist()}, are {where}'
            yield 'joints', text, bool(len(wrong) >= most * annotated.sum())
    if annotated.sum() >= 4 and np.ptp(joints[annotated], axis=0).max() < SPOT * side:
        corner = joints[annotated].min(axis=0).round(2).tolist()
        text = f'all {annotated.sum()} annotated joints are in one spot, {corner}; give them in pixels'
        yield 'joints', text, True


def _print(datasets: dict, findings: list[Finding], out: str) -> None:
    for name, counts in datasets.items():
        print(f'{name}: {counts["persons"]:,} persons in {counts["images"]:,} images')
    for bad, word in ((True, 'bad'), (False, 'suspicious')):
        chosen = [finding for finding in findings if finding.bad == bad]
        counts = Counter(finding.kind for finding in chosen)
        for kind, count in counts.items():
            print(f'{count:,} {word} ({kind}):')
            for finding in [each for each in chosen if each.kind == kind][:5]:
                where = '' if finding.annotation is None else f', annotation {finding.annotation}'
                print(f'  {finding.dataset}{where}: {finding.problem}')
            if count > 5:
                print(f'  ... {count - 5:,} more')
    print(f'{"Nothing is wrong" if not findings else "All of it"}: {out}')
