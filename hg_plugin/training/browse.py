"""Draw what a training sees: augmented samples with their keypoints and target heatmaps."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATA_SAMPLERS, DATASETS, MODELS, init_default_scope

from hg_plugin.datasets.walk import walk
from hg_plugin.models import draw_heatmaps
from hg_plugin.utils.config import building
from hg_plugin.utils.images import as_bgr
from hg_plugin.utils.randomness import mix, preserved, seed_all
from hg_plugin.visualization import blend_by_color, draw_skeleton, label, write_grid

HEIGHT = 224  # of a sample in the contact sheet, in pixels
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
        targets: (K, h, w) heatmaps, or None where neither the pipeline nor the data preprocessor draws them.
        weights: (K,) of the targets in the loss, or None.
    """

    index: int
    path: str
    image: np.ndarray
    keypoints: np.ndarray
    annotated: np.ndarray
    targets: np.ndarray | None = None
    weights: np.ndarray | None = None

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
            # a sampler of tests has an order of its own, without a seed
            sampler = loader['sampler'] if split == 'train' else dict(type='SeededSampler')
            self.sampler = DATA_SAMPLERS.build(
                sampler, default_args=dict(dataset=self.dataset, seed=self.seed)
            )
            self.encoder = getattr(MODELS.build(cfg.model).data_preprocessor, 'encoder', None)
        self.meta = self.dataset.metainfo
        for dataset in walk(self.dataset):
            for transform in getattr(getattr(dataset, 'pipeline', None), 'transforms', ()):
                if hasattr(transform, 'pack_transformed'):
                    transform.pack_transformed = True

    def __iter__(self) -> Iterator[Sample]:
        for index in islice(self.sampler, len(self.dataset)):
            with preserved():
                if hasattr(self.dataset, '__getitems__'):
                    (packed,) = self.dataset.__getitems__([index])
                else:
                    seed_all(mix(self.seed, int(index)))
                    packed = self.dataset[index]
            yield self._sample(int(index), **packed)

    def _sample(self, index: int, inputs: torch.Tensor, data_samples) -> Sample:
        points = data_samples.gt_instances.transformed_keypoints[:1]
        visible = data_samples.gt_instances.keypoints_visible[:1].astype(np.float32)
        if visible.ndim == 3:  # visibility and weight of KeypointConverter
            visible = visible.prod(axis=2)
        image, path = as_bgr(inputs.permute(1, 2, 0).numpy()), str(data_samples.get('img_path'))
        sample = Sample(index, path, image, points[0, :, :2].astype(float), visible[0] > 0)
        if 'gt_fields' in data_samples:  # of GenerateTarget
            maps = data_samples.gt_fields.heatmaps
            sample.targets = maps[:: len(maps) // points.shape[1]].numpy()  # two offsets may follow each
            sample.weights = data_samples.gt_instance_labels.keypoint_weights.numpy()[0]
        elif self.encoder:
            keypoints = torch.from_numpy(points.astype(np.float32))
            maps, weights = draw_heatmaps(keypoints, torch.from_numpy(visible), self.encoder)
            sample.targets, sample.weights = maps[0].numpy(), weights[0].numpy()
        return sample


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
    title = f'{Path(cfg.filename or "config").name}: {len(drawn)} of {len(samples.dataset):,} {split} samples'
    title += f', seed {samples.seed}. Red crosses: joints outside of the input'
    write_grid(out, [_draw(sample, samples.meta) for sample in drawn], title)
    return {names[index].replace('_', ' '): row for index, row in enumerate(counts.tolist())}, len(drawn)


def _draw(sample: Sample, meta: dict) -> np.ndarray:
    """The input with its keypoints, HEIGHT pixels high, beside its targets, above a caption."""
    height, width = sample.image.shape[:2]
    factor = HEIGHT / height
    image = cv2.resize(sample.image, (max(round(width * factor), 1), HEIGHT), interpolation=cv2.INTER_LINEAR)
    points = (sample.keypoints + 0.5) * factor - 0.5
    drawn = draw_skeleton(image.copy(), points, sample.annotated, meta)
    for x, y in points[sample.outside]:  # a cross at the edge, where it left the input
        place = int(np.clip(x, 5, image.shape[1] - 6)), int(np.clip(y, 5, HEIGHT - 6))
        for color, thickness in ((WHITE, 4), (RED, 2)):
            cv2.drawMarker(drawn, place, color, cv2.MARKER_TILTED_CROSS, 9, thickness, cv2.LINE_AA)
    if sample.targets is not None:
        drawn = np.hstack([drawn, blend_by_color(image, sample.targets, meta)])
    outside = f', {sample.outside.sum()} outside' * bool(sample.outside.any())
    caption = label(f'{sample.index}: {Path(sample.path).name}{outside}', (drawn.shape[1], 20))
    return cv2.copyMakeBorder(np.vstack([drawn, caption]), *[3] * 4, cv2.BORDER_CONSTANT, value=WHITE)
