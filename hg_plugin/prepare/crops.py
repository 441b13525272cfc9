"""A one-time cache of person crops, from which a config trains as from the full pictures, several times faster."""

import contextlib
import copy
import hashlib
import json
import multiprocessing
import os.path as osp
import shutil
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope
from scipy.io import loadmat, savemat

from hg_plugin.datasets.transforms import LoadReducedImage, decode, picture_from_reduced
from hg_plugin.mpii_format import CENTER_SHIFT
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.progress import Progress

NUM_TRIALS = 32  # crops made to foretell disk and time
MARGIN = 2  # pixels that interpolation and rounding may want beyond the farthest
SETTINGS_FILE = 'crops.json'


@dataclass(frozen=True)
class Reach:
    """How much of a picture a pipeline with its strongest augmentation can want, and how large.

    Args:
        input_size: Width and height of the network's input.
        min_scale: That of :class:`LoadReducedImage`; None for a pipeline that decodes at full size.
        padding: What the box is widened by.
        scales: Smallest and largest scale.
        rotation: Largest rotation, in degrees.
        shift: Largest shift, as a share of the widened box.
    """

    input_size: tuple[int, int]
    min_scale: float | None
    padding: float
    scales: tuple[float, float]
    rotation: float
    shift: float

    @classmethod
    def of(cls, pipeline: Sequence[dict]) -> 'Reach':
        """Raises an :class:`InputError` for a pipeline that cannot be foretold."""
        transforms = {
            transform['type']: TRANSFORMS.build(copy.deepcopy(dict(transform))) for transform in pipeline
        }
        warp = transforms.get('TopdownWarp') or transforms.get('TopdownAffine')
        box = transforms.get('GetBBoxCenterScale')
        if warp is None or box is None or 'RandomHalfBody' in transforms:
            raise InputError(
                'Crops need a pipeline with GetBBoxCenterScale and TopdownWarp (or TopdownAffine), and without RandomHalfBody, '
                'whose crops nobody can foretell; train on the full pictures instead.'
            )
        load = transforms.get('LoadReducedImage')
        min_scale = load.min_scale if load else None
        random = transforms.get('RandomPersonTransform') or transforms.get('RandomBBoxTransform')
        if random is None:
            return cls(tuple(warp.input_size), min_scale, box.padding, (1.0, 1.0), 0.0, 0.0)
        scales = sorted((*random.scale_factor, 1.0)) if random.scale_prob else (1.0, 1.0)
        return cls(
            tuple(warp.input_size),
            min_scale,
            box.padding,
            (float(scales[0]), float(scales[-1])),
            float(random.rotate_factor) if random.rotate_prob else 0.0,
            float(random.shift_factor) if random.shift_prob else 0.0,
        )

    def region(self, side: float) -> np.ndarray:
        """Width and height of the input's region, in pixels of the picture, for a person in a square box, unscaled."""
        width, height = self.input_size
        return side * self.padding * np.array([max(1, width / height), max(1, height / width)])

    def extent(self, side: float) -> np.ndarray:
        """How far from the middle of the box, along x and y, a sample can reach: half the bounding box of the largest turned region."""
        width, height = self.region(side) / 2
        angles = np.deg2rad(np.linspace(0, min(self.rotation, 90), 91))
        turned = np.array(
            [
                (np.cos(angles) * width + np.sin(angles) * height).max(),
                (np.sin(angles) * width + np.cos(angles) * height).max(),
            ]
        )
        return turned * self.scales[1] + self.shift * self.region(side)


@dataclass(frozen=True)
class Crop:
    """Where a crop lies: a window of the picture decoded at 1 / ``reduction``, from ``start`` to ``end`` (x, y), resized by ``factor``."""

    image: str
    path: str
    reduction: int
    start: tuple[int, int]
    end: tuple[int, int]
    factor: float

    def transform(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2) of the picture in the crop, both 0-based with pixels' centres at whole numbers."""
        reduced = (
            np.asarray(points, np.float64) - picture_from_reduced(self.reduction)[:2, 2]
        ) / self.reduction
        return (reduced - self.start + 0.5) * self.factor - 0.5

    @property
    def scale(self) -> float:
        """Pixels of the crop a pixel of the picture."""
        return self.factor / self.reduction


def plan_crop(image: str, path: str, bbox: np.ndarray, reach: Reach, lossless: bool) -> Crop:
    """The crop of the person in ``bbox`` (4,), just large enough for ``reach``."""
    center, side = (bbox[:2] + bbox[2:]) / 2.0, float(bbox[2] - bbox[0])
    region = reach.region(side)
    # as the pipeline decodes the full picture
    reduction = (
        LoadReducedImage(reach.input_size, reach.min_scale).reduction(region) if reach.min_scale else 1
    )
    # no sample magnifies the crop more than it would the picture
    smallest = region[0] * reach.scales[0] / reduction
    factor = 1.0 if lossless else min(1.0, reach.input_size[0] / smallest)
    middle = (center - picture_from_reduced(reduction)[:2, 2]) / reduction
    extent = reach.extent(side) / reduction + MARGIN / factor
    start = np.maximum(np.floor(middle - extent), 0).astype(int)
    end = np.maximum(np.ceil(middle + extent).astype(int), start + 1)
    return Crop(image, path, reduction, tuple(start.tolist()), tuple(end.tolist()), factor)


def write_crop(crop: Crop, quality: int) -> int:
    """Writes the picture, whole or not at all; gives its bytes. Raises an :class:`InputError` for a damaged picture."""
    with open(crop.image, 'rb') as file:
        picture = decode(file.read(), crop.reduction, crop.image)
    (left, top), (right, bottom) = crop.start, crop.end
    window = picture[top:bottom, left:right]
    if not window.size:  # a person outside the picture, of whom the full picture shows as little
        window = np.zeros((1, 1, 3), np.uint8)
    if crop.factor < 1:
        window = cv2.resize(window, None, fx=crop.factor, fy=crop.factor, interpolation=cv2.INTER_AREA)
    extension = osp.splitext(crop.path)[1]
    _, data = cv2.imencode(
        extension, window, [cv2.IMWRITE_JPEG_QUALITY, quality] if extension == '.jpg' else []
    )
    with atomic_write(crop.path) as file:
        file.write(data)
    return len(data)


def _try_crop(task: tuple[Crop, int]) -> tuple[Crop, int, str]:
    """The crop, its bytes, and what is wrong with it, if anything is."""
    try:
        return task[0], write_crop(*task), ''
    except InputError as error:
        return task[0], 0, str(error)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers, without a traceback from each
    cv2.setNumThreads(0)


def make_crops(
    cfg: Config, out: str, *, lossless: bool = False, quality: int = 90, num_workers: int = 1
) -> None:
    """Makes a data root of person crops out of a config's training and validation sets.

    A crop holds what the config's strongest augmentation can want, at a resolution that no sample magnifies more than it would the full
    picture; joints, centres, scales and head boxes are in its pixels, so that the config trains from it with another ``data_root``.
    Validation crops are lossless, so that scores stay as they are. Goes on where it was interrupted. Annotations are written last, when
    every crop is there.

    Args:
        cfg: A config with two :class:`MPIIPoseDataset` loaders.
        out: The new data root.
        lossless: Store windows of the decoded training pictures as they are, as BMP: twenty times larger, and faster still to read.
            Defaults to False: JPEG, and persons who are larger than the network's input are made smaller.
        quality: Of the JPEG files, 1 to 100. Defaults to 90.
        num_workers: Processes. Defaults to 1.

    Raises:
        InputError: for a pipeline or data set that no crops can be made of, an ``out`` with other crops, too small a disk; and after all
            others were made, for pictures that are missing or damaged.
    """
    if num_workers < 1 or not 1 <= quality <= 100:
        raise InputError(f'workers is {num_workers} and quality {quality}; give at least 1, and 1 to 100.')
    init_default_scope(cfg.get('default_scope', 'mmpose'))
    try:
        sets = [_load(cfg[loader].dataset, loader, out) for loader in ('train_dataloader', 'val_dataloader')]
        reaches = [
            Reach.of(cfg[loader].dataset.pipeline) for loader in ('train_dataloader', 'val_dataloader')
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'The config builds no training and validation set: {type(error).__name__}: {error}; correct it.'
        ) from error
    settings = dict(lossless=lossless, quality=quality)
    for dataset, reach in zip(sets, reaches):
        settings.update(
            {
                f'{_name(dataset)}.{key}': value
                for key, value in {**reach.__dict__, 'sha256': _digest(dataset.ann_file)}.items()
            }
        )
    _check_settings(out, json.loads(json.dumps(settings)))

    train, val = sets
    crops = {train: _plan(train, out, reaches[0], lossless), val: _plan(val, out, reaches[1], lossless=True)}
    todo = [crop for planned in crops.values() for crop in planned if not osp.isfile(crop.path)]
    total = sum(map(len, crops.values()))
    if len(todo) < total:
        print(f'{total - len(todo):,} of {total:,} crops are there already.')
    _write_crops(todo, quality, num_workers, out)
    for dataset, planned in crops.items():
        _write_annotations(dataset, planned, out)
    print(f'{total:,} crops and their annotations are in {out}: train with --data-root {out}')


def _load(cfg: dict, loader: str, out: str):
    if cfg.type != 'MPIIPoseDataset':
        raise InputError(f'{loader}.dataset is a {cfg.type}; crops are made of MPIIPoseDataset alone.')
    cfg = {**cfg, 'pipeline': []}
    if osp.realpath(cfg.get('data_root') or '.') == osp.realpath(out):
        raise InputError(f'{out} is the data set itself; give another folder for the crops.')
    return DATASETS.build(cfg)


def _name(dataset) -> str:
    return osp.splitext(osp.basename(dataset.ann_file))[0]


def _digest(path: str) -> str:
    with open(path, 'rb') as file:
        return hashlib.sha256(file.read()).hexdigest()


def _check_settings(out: str, settings: dict) -> None:
    path = osp.join(out, SETTINGS_FILE)
    if osp.isfile(path):
        try:
            with open(path) as file:
                found = json.load(file)
        except ValueError as error:
            raise InputError(f'{path} was damaged; remove {out}, and make the crops again.') from error
        other = [
            f'{key} {found.get(key)} instead of {value}'
            for key, value in settings.items()
            if found.get(key) != value
        ]
        if other:
            raise InputError(
                f'{out} has crops that were made with {other[0]}; give another folder, or remove this one.'
            )
        return
    with atomic_write(path) as file:
        file.write(json.dumps(settings, indent=1).encode())


def _plan(dataset, out: str, reach: Reach, lossless: bool) -> list[Crop]:
    extension = (
        '.bmp' if lossless else '.jpg'
    )  # a PNG takes longer to decode than the whole JPEG that it was cut from
    planned = []
    for index in range(len(dataset)):
        person = dataset.get_data_info(index)
        image = person['img_path']
        if not osp.isfile(image):
            raise InputError(
                f'{image} does not exist, but annotation {index} of {dataset.ann_file} wants it; put the pictures there.'
            )
        name = f'{_name(dataset)}/{osp.splitext(osp.basename(image))[0]}_{index:05d}{extension}'
        planned.append(plan_crop(image, osp.join(out, 'images', name), person['bbox'][0], reach, lossless))
    return planned


def _write_crops(crops: list[Crop], quality: int, num_workers: int, out: str) -> None:
    if not crops:
        return
    trials = crops[:: max(len(crops) // NUM_TRIALS, 1)]
    rest = sorted(set(crops) - set(trials), key=lambda crop: crop.path)
    wrong: dict[str, str] = {}
    free = shutil.disk_usage(out).free
    with multiprocessing.Pool(num_workers, _start_worker) as pool:
        start = time.monotonic()
        results = pool.map(_try_crop, [(crop, quality) for crop in trials], chunksize=1)
        seconds = (time.monotonic() - start) / len(trials) * len(crops)
        written = sum(size for _, size, _ in results)
        needed = written / max(sum(not problem for _, _, problem in results), 1) * len(crops)
        print(
            f'{len(crops):,} crops into {out}: about {_size(needed)} (free: {_size(free)}) and {seconds / 60:.1f} minutes with '
            f'{num_workers} processes.',
            flush=True,
        )
        if needed > free:
            for crop in trials:
                Path(crop.path).unlink(missing_ok=True)
            raise InputError(
                f'{out} has {_size(free)} free, and the crops need about {_size(needed)}; choose another disk.'
            )
        wrong.update({crop.path: problem for crop, _, problem in results if problem})
        with Progress(len(rest), 'more crops') if rest else contextlib.nullcontext() as progress:
            for crop, size, problem in pool.imap_unordered(
                _try_crop, [(crop, quality) for crop in rest], chunksize=8
            ):
                written += size
                if problem:
                    wrong[crop.path] = problem
                progress.update(_size(written))
    if wrong:
        for problem in list(wrong.values())[:20]:
            print(problem)
        raise InputError(
            f'{len(wrong):,} of {len(crops):,} crops could not be made, for reasons of which the first are listed above; see to '
            'them, and run the command again: it goes on from here.'
        )


def _size(num_bytes: float) -> str:
    for unit, factor in (('GB', 1e9), ('MB', 1e6)):
        if num_bytes >= factor:
            return f'{num_bytes / factor:,.1f} {unit}'
    return f'{num_bytes / 1e3:,.0f} kB'


def _write_annotations(dataset, crops: list[Crop], out: str) -> None:
    """The set's annotation file, and its head-box file if it has one, in pixels of the crops."""
    with open(dataset.ann_file) as file:
        annotations = json.load(file)
    for annotation, crop in zip(annotations, crops):
        joints, visible = np.array(annotation['joints'], np.float64), np.array(annotation['joints_vis']) > 0
        joints[visible] = crop.transform(joints[visible] - 1) + 1  # what is not annotated keeps its mark
        lowered = np.array(annotation['center']) + [0, CENTER_SHIFT * annotation['scale']] - 1
        scale = annotation['scale'] * crop.scale
        annotation.update(
            image=osp.relpath(crop.path, osp.join(out, 'images')),
            joints=joints.tolist(),
            scale=scale,
            center=(crop.transform(lowered) + 1 - [0, CENTER_SHIFT * scale]).tolist(),
        )
    if dataset.headbox_file:
        truth = {
            key: value for key, value in loadmat(dataset.headbox_file).items() if not key.startswith('__')
        }
        for key in ('headboxes_src', 'pos_gt_src'):
            points = np.moveaxis(truth[key].astype(np.float64), -1, 0)
            truth[key] = np.stack([crop.transform(p - 1) + 1 for p, crop in zip(points, crops)], axis=-1)
        with atomic_write(_moved(dataset.headbox_file, dataset, out)) as file:
            savemat(file, truth)
    with atomic_write(_moved(dataset.ann_file, dataset, out)) as file:
        file.write(json.dumps(annotations).encode())


def _moved(path: str, dataset, out: str) -> str:
    return osp.join(out, osp.relpath(path, dataset.data_root))
