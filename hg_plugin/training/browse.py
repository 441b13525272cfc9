"""Draw what a training sees: augmented samples with their keypoints and target heatmaps."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATA_SAMPLERS, DATASETS, MODELS, init_default_scope
from torch import Tensor

from hg_plugin.datasets.walk import walk
from hg_plugin.utils.config import building
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.images import as_bgr
from hg_plugin.utils.randomness import mix, preserved, seed_all
from hg_plugin.visualization import blend_by_color, color_legend, draw_skeleton, label

HEIGHT, COLUMNS, CAPTION = 224, 4, 20  # of a sample in the contact sheet, in pixels; samples in a row
RED, WHITE = (50, 50, 230), (255, 255, 255)


@dataclass
class Sample:
    """A sample of a dataset.

    Attributes:
        index: In the dataset.
        path: Of the image.
        image: (H, W, 3) uint8 BGR, the network's input.
        keypoints: (K, 2) in pixels of the input.
        annotated: (K,) bool.
        targets: (K, h, w) heatmaps, or None where the codec has none.
        weights: (K,) of the targets in the loss, or None.
    """

    index: int
    path: str
    image: np.ndarray
    keypoints: np.ndarray
    annotated: np.ndarray
    targets: np.ndarray | None
    weights: np.ndarray | None

    @property
    def outside(self) -> np.ndarray:
        """(K,) bool: annotated, but not in the input."""
        size = np.array(self.image.shape[1::-1])
        return self.annotated & ((self.keypoints < -0.5) | (self.keypoints > size - 0.5)).any(axis=1)

    @property
    def untrained(self) -> np.ndarray:
        """(K,) bool: annotated, but without a target."""
        return self.annotated & (self.weights <= 0 if self.weights is not None else False)


class Samples:
    """Samples of a config's dataset, augmented as in a training.

    The samples of ``train`` are the first ones of a training with this seed, in its order. With
    :class:`hg_plugin.datasets.SeededSampler` they are augmented as there, too.

    Args:
        cfg: The config. Any dataset of single persons, also wrapped, whose pipeline ends with
            ``PackKeypoints`` or MMPose's ``PackPoseInputs``.
        split: 'train', 'val' or 'test'. Defaults to 'train'.
        seed: Defaults to None: the config's, or else 0.

    Raises:
        InputError: The config builds no such dataset.
    """

    def __init__(self, cfg: Config, split: str = 'train', seed: int | None = None):
        init_default_scope(cfg.get('default_scope', 'mmpose'))
        self.seed = (cfg.get('randomness') or {}).get('seed') or 0 if seed is None else seed
        with building(cfg, f'{split} dataset'):
            loader = cfg[f'{split}_dataloader']
            self.dataset = DATASETS.build(loader['dataset'])
            model = MODELS.build(cfg.model)
            self.preprocessor = model.data_preprocessor
            # a sampler of tests has an order of its own, without a seed
            sampler = loader['sampler'] if split == 'train' else dict(type='SeededSampler')
            self.sampler = DATA_SAMPLERS.build(
                sampler, default_args=dict(dataset=self.dataset, seed=self.seed)
            )
            self.codec = getattr(self.preprocessor, 'encoder', None) or getattr(model.head, 'decoder', None)
        self.meta = self.dataset.metainfo
        self.source: dict = {}  # of the sample that was loaded last
        for dataset in walk(self.dataset):
            self._watch(dataset)

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[Sample]:
        for index in islice(self.sampler, len(self)):
            with preserved():
                if hasattr(self.dataset, '__getitems__'):
                    (packed,) = self.dataset.__getitems__([index])
                else:
                    seed_all(mix(self.seed, int(index)))
                    packed = self.dataset[index]
            yield self._sample(int(index), packed)

    def _watch(self, dataset) -> None:
        """Record the image of every sample, and keep its keypoints in pixels of the input."""
        pipeline = getattr(dataset, 'pipeline', None)
        if pipeline is None:
            return
        for transform in pipeline.transforms:
            if hasattr(transform, 'pack_transformed'):
                transform.pack_transformed = True

        def recording(results: dict):
            self.source = {key: results.get(key) for key in ('img_path', 'id')}
            return pipeline(results)

        dataset.pipeline = recording

    def _sample(self, index: int, packed: dict) -> Sample:
        packed_sample = packed['data_samples']
        if isinstance(packed_sample, Mapping):
            points, visible = (packed_sample[key][None] for key in ('keypoints', 'keypoints_visible'))
            targets = self.preprocessor(pseudo_collate([packed]))['data_samples']
        else:
            instances = packed_sample.gt_instances
            points, visible = instances.transformed_keypoints, instances.keypoints_visible
            targets = self._packed_targets(packed_sample) or self._encode(points, visible)
        points, visible = np.asarray(points, np.float64)[0, :, :2], np.asarray(visible)
        annotated = visible.reshape(len(visible), len(points), -1)[0, :, 0] > 0
        maps, weights = (targets.get(key) for key in ('heatmaps', 'keypoint_weights'))
        if maps is not None:
            maps = np.asarray(maps, np.float32)
            maps = maps.reshape(-1, *maps.shape[-2:])
            maps = maps[:: len(maps) // len(points)]  # two offsets may follow each heatmap
        return Sample(
            index=index,
            path=str(self.source.get('img_path')),
            image=as_bgr(packed['inputs'].permute(1, 2, 0).numpy()),
            keypoints=points,
            annotated=annotated,
            targets=maps,
            weights=None if weights is None else np.asarray(weights).reshape(-1)[: len(points)],
        )

    @staticmethod
    def _packed_targets(packed_sample) -> dict | None:
        """What GenerateTarget has drawn."""
        if 'gt_fields' not in packed_sample:
            return None
        maps = packed_sample.gt_fields.heatmaps
        labels = packed_sample.gt_instance_labels
        weights = labels.keypoint_weights if 'keypoint_weights' in labels else None
        return dict(heatmaps=maps if isinstance(maps, Tensor) else maps[-1], keypoint_weights=weights)

    def _encode(self, points: np.ndarray, visible: np.ndarray) -> dict:
        """What the codec would draw: a pipeline of tests has no GenerateTarget."""
        return self.codec.encode(points.astype(np.float32), visible.astype(np.float32)) if self.codec else {}


def browse(
    cfg: Config, out: str | PathLike, *, split: str = 'train', num: int = 24, seed: int | None = None
) -> tuple[dict[str, list[int]], int]:
    """Draw samples of a config's dataset on one contact sheet.

    Args:
        cfg, split, seed: See :class:`Samples`.
        out: The image.
        num: How many samples. Defaults to 24.

    Returns:
        By the name of a keypoint: how often it is annotated, outside of the input, and without a target. And
        the number of samples.

    Raises:
        InputError: The config builds no dataset, or the file cannot be written.
    """
    samples = Samples(cfg, split, seed)
    drawn = list(islice(samples, num))
    counts = np.sum([(one.annotated, one.outside, one.untrained) for one in drawn], axis=0).T
    names = samples.meta['keypoint_id2name']
    title = f'{Path(cfg.filename or "config").name}: {len(drawn)} of {len(samples):,} {split} samples'
    sheet = _sheet(drawn, samples.meta, f'{title}, seed {samples.seed}')
    with atomic_write(out) as file:
        file.write(cv2.imencode('.png', sheet)[1])
    return {names[index].replace('_', ' '): row for index, row in enumerate(counts.tolist())}, len(drawn)


def _draw(sample: Sample, meta: dict) -> list[np.ndarray]:
    """The input with its keypoints, and its targets, each of HEIGHT pixels."""
    height, width = sample.image.shape[:2]
    factor = HEIGHT / height
    image = cv2.resize(sample.image, (max(round(width * factor), 1), HEIGHT), interpolation=cv2.INTER_LINEAR)
    points = (sample.keypoints + 0.5) * factor - 0.5
    drawn = draw_skeleton(image.copy(), points, sample.annotated, meta)
    for x, y in points[sample.outside]:  # a cross at the edge, where it left the input
        place = int(np.clip(x, 5, image.shape[1] - 6)), int(np.clip(y, 5, HEIGHT - 6))
        for color, thickness in ((WHITE, 4), (RED, 2)):
            cv2.drawMarker(drawn, place, color, cv2.MARKER_TILTED_CROSS, 9, thickness, cv2.LINE_AA)
    return [drawn] if sample.targets is None else [drawn, blend_by_color(image, sample.targets, meta)]


def _sheet(drawn: list[Sample], meta: dict, title: str) -> np.ndarray:
    boxes = []
    for sample in drawn:
        images, outside = np.hstack(_draw(sample, meta)), int(sample.outside.sum())
        caption = f'{sample.index}: {Path(sample.path).name}' + (f', {outside} outside' if outside else '')
        box = np.vstack([images, label(caption, (images.shape[1], CAPTION))])
        boxes.append(cv2.copyMakeBorder(box, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=WHITE))
    boxes += [np.full_like(boxes[0], 255)] * (-len(boxes) % min(COLUMNS, len(boxes)))
    columns = min(COLUMNS, len(boxes))
    grid = np.vstack([np.hstack(boxes[first : first + columns]) for first in range(0, len(boxes), columns)])
    head = np.full((56, grid.shape[1], 3), 255, np.uint8)
    head[:20] = label(title, (grid.shape[1], 20))
    x = 8
    entries = {**color_legend(meta), 'outside of the input': RED[::-1]}
    for text, color in entries.items():
        cv2.circle(head, (x, 38), 6, color[::-1], -1, cv2.LINE_AA)
        cv2.putText(head, text, (x + 12, 42), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        x += 40 + 9 * len(text)
    return np.vstack([head, grid])
