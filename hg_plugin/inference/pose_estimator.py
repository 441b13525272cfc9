"""Find the keypoints of persons in images, with the flip test and the multi-scale test."""

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from os import PathLike
from typing import NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmpose.apis.inference import dataset_meta_from_config
from mmpose.models import TopdownPoseEstimator
from torch import Tensor

from hg_plugin.engine.optim_wrapper import cpu_has_bfloat16
from hg_plugin.models import StackedHourglass, average_flipped, reparameterize
from hg_plugin.utils.checkpoint import check_weights, dataset_meta_of, kpt_thr_of, read_checkpoint, weights_of
from hg_plugin.utils.config import building, read_config
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.heatmaps import into_frame
from hg_plugin.utils.images import as_bgr, read_image
from hg_plugin.utils.weights import config_and_checkpoint

from .boxes import check_boxes
from .find import find_people
from .results import Image, Poses


class _Image(NamedTuple):
    """An image (H, W, 3) with its boxes (N, 4) and their scores (N,)."""

    source: Image
    pixels: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    @property
    def persons(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(self.pixels, box) for box in self.boxes]


class PoseEstimator:
    """Find the keypoints of persons in images, with a top-down network that predicts heatmaps.

        estimator = PoseEstimator()  # the network that the package carries
        keypoints, scores = estimator('image.jpg', boxes=[[50, 20, 220, 480]])
        estimator = PoseEstimator('configs/hg_2stack_mpii.py', 'hg_2stack_mpii.pth')

    Images go through the pipeline of the config's ``test_dataloader``, heatmaps through its codec. Results
    agree with MMPose's own inferencer, and nearly with a test, which decodes large JPEGs at a reduced size.

    Args:
        config: The config file, or a config. Defaults to None, together with ``checkpoint``: the network of
            the package, see :mod:`hg_plugin.utils.weights`.
        checkpoint: The weights. Defaults to None.
        device: 'cpu', 'cuda', 'cuda:1', ... Defaults to None: a GPU if torch can use one.
        batch_size: Persons per batch, twice as many in the flip test. Defaults to 16.
        cfg_options: Settings to override in the config, such as ``{'model.test_cfg.shift_heatmap': False}``.
            Defaults to None.
        bfloat16: Run the network in bfloat16 on a CPU that has instructions for it: 1.8 times as fast, and
            PCKh is the same, see docs/benchmarks.md. Defaults to False.

    Attributes:
        cfg: The config.
        model: The trained network, in evaluation mode. Inference runs a reparameterized copy.
        num_keypoints: K.
        annotated: (K,) bool: which keypoints the training data had, as far as the checkpoint's metainfo or
            ``test_cfg.unannotated_keypoints`` of the config says. The scores of the others are 0.
        kpt_thr: Score that nine of ten right keypoints reached in the last test of this checkpoint; 0.3 if it
            was not tested.

    Raises:
        InputError: If the config, the checkpoint or the device cannot be used, or they do not fit together.
    """

    backend: str | PathLike = 'torch'

    def __init__(
        self,
        config: str | PathLike | Config | None = None,
        checkpoint: str | PathLike | None = None,
        device: str | torch.device | None = None,
        batch_size: int = 16,
        cfg_options: dict | None = None,
        bfloat16: bool = False,
    ):
        if batch_size < 1:
            raise InputError(f'batch_size is {batch_size}; give at least 1.')
        config, checkpoint = config_and_checkpoint(config, checkpoint)
        self.batch_size, self.checkpoint, self.cfg_options = batch_size, checkpoint, cfg_options
        self.cfg = read_config(config, cfg_options=cfg_options)
        self.config = str(self.cfg.filename or 'The config')
        init_default_scope(self.cfg.get('default_scope', 'mmpose'))
        with building(self.config, 'model'):
            self.model = revert_sync_batchnorm(MODELS.build(self.cfg.model))
        decoder = getattr(getattr(self.model, 'head', None), 'decoder', None)
        if not isinstance(self.model, TopdownPoseEstimator) or not hasattr(decoder, 'heatmap_size'):
            raise InputError(
                f'{self.config} builds a {type(self.model).__name__} with a {type(decoder).__name__}; '
                'give a config of a TopdownPoseEstimator with a codec of heatmaps, such as MSRAHeatmap.'
            )
        # a codec that also predicts offsets has three channels per keypoint
        self._channels = 3 if getattr(decoder, 'heatmap_type', None) == 'combined' else 1
        self.num_keypoints = self.model.head.out_channels // self._channels
        with building(self.config, 'test pipeline'):
            dataset = self.cfg.test_dataloader.dataset
            while not dataset.get('pipeline'):  # of RepeatDataset, ConcatDataset, CombinedDataset
                dataset = dataset.dataset if 'dataset' in dataset else dataset.datasets[0]
            self.pipeline = Compose(dataset.pipeline)
        self._use_udp = any(getattr(transform, 'use_udp', False) for transform in self.pipeline.transforms)
        content = read_checkpoint(str(checkpoint))
        state = weights_of(content, checkpoint)
        check_weights(self.model, state, checkpoint)
        self.model.load_state_dict(state)
        self._trained_meta = dataset_meta_of(content, checkpoint)
        self.kpt_thr = kpt_thr_of(str(checkpoint))
        try:
            self.device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
            self.model.to(self.device).eval()
        except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
            reason = str(error).splitlines()[0]
            raise InputError(f"The device '{device}' cannot be used ({reason}); give another.") from error
        self.bfloat16 = bfloat16 and self.device.type == 'cpu' and cpu_has_bfloat16()

    def __call__(
        self,
        image: Image | list[Image] | tuple[Image, ...],
        boxes: Sequence | None = None,
        *,
        whole_image: bool = False,
        flip_test: bool = False,
        scales: Sequence[float] = (1.0,),
        heatmaps: bool = False,
    ) -> Poses | list[Poses]:
        """Find the keypoints of the persons in an image, or in several.

        Args:
            image: A path; an array: gray, BGR or BGRA, of 8 or 16 bits; a PIL image, which is taken as it is,
                without its EXIF orientation; or a list or tuple of them.
            boxes: (N, 4), one per person: left, top, right and bottom in pixels, or (N, 5) with their scores;
                they may reach over the edge of the image. The config's ``GetBBoxCenterScale`` enlarges them,
                by default by a quarter. For a list of images, a list with the boxes, or None, of each.
                Defaults to None: persons are looked for, see :mod:`hg_plugin.inference.find`.
            whole_image: Without boxes, take the whole image as one person. Defaults to False.
            flip_test: Average with the heatmaps of the flipped crop, as in the paper; ``flip_mode`` and
                ``shift_heatmap`` are those of the config's ``test_cfg``. Defaults to False.
            scales: Relative sizes of the crop, from 0.1 to 10: the multi-scale test. Heatmaps are resampled
                to scale 1 and averaged over the scales that cover a pixel. Yang et al., "Learning Feature
                Pyramids for Human Pose Estimation" (ICCV 2017), use ``(.8, .9, 1, 1.1, 1.2, 1.3)``. Defaults
                to (1., ).
            heatmaps: Also return the heatmaps of every stack, and the crops. Defaults to False.

        Returns:
            :class:`Poses`. For a list, a list of them.

        Raises:
            ImageError: If one is no image, or a box is wrong or outside the image.
            InputError: If the scales are wrong, or the config's dataset or codec does not allow the options.
        """
        options = dict(whole_image=whole_image, flip_test=flip_test, scales=scales, heatmaps=heatmaps)
        if not isinstance(image, (list, tuple)):
            return next(self.stream([(image, boxes)], **options))
        boxes = [None] * len(image) if boxes is None else boxes
        if len(boxes) != len(image):
            raise InputError(f'There are {len(image)} images and boxes of {len(boxes)}; give boxes of each.')
        return list(self.stream(zip(image, boxes), **options))

    def stream(
        self,
        images: Iterable[tuple[Image, Sequence | None]],
        *,
        whole_image: bool = False,
        flip_test: bool = False,
        scales: Sequence[float] = (1.0,),
        heatmaps: bool = False,
    ) -> Iterator[Poses]:
        """Do the same for many images, with persons of several images in a batch.

        Args:
            images: Images with their boxes, or with None. At most ``batch_size`` of them are in memory.
            whole_image, flip_test, scales, heatmaps: See :meth:`__call__`.

        Yields:
            The result of each image, in order.
        """
        if not len(scales) or not all(0.1 <= scale <= 10 for scale in scales):
            raise InputError(f'scales are {scales!r}; give at least one, all from 0.1 to 10.')
        if self._channels > 1 and (heatmaps or any(scale != 1 for scale in scales)):
            raise InputError(
                f'The codec of {self.config} predicts offsets beside heatmaps, which can be neither drawn '
                'nor averaged over scales; leave out heatmaps and scales.'
            )
        waiting, done = deque(), deque()  # images that were read; results of persons

        def read():
            for source, boxes in images:
                waiting.append(image := self._read(source, boxes, whole_image))
                # an image without persons takes a place too, or many of them would wait for the next person
                yield from image.persons or [None]

        persons = read()
        while True:
            batch = list(islice(persons, self.batch_size))
            if any(batch):
                done += self._estimate([person for person in batch if person], flip_test, scales, heatmaps)
            last = len(batch) < self.batch_size
            del batch  # with its images
            while waiting and len(done) >= len(waiting[0].boxes):
                own = [done.popleft() for _ in waiting[0].boxes]
                yield self._collect(waiting.popleft(), own, heatmaps)
            if last:
                return

    @torch.no_grad()
    def inputs(self, image: Image, boxes: Sequence | None = None) -> Tensor:
        """The network's inputs, (N, 3, H, W) and normalised, for an image and boxes, or the whole image."""
        return self._inputs(self._crops(self._read(image, boxes, whole_image=True).persons))

    @cached_property
    def dataset_meta(self) -> dict:
        """MMPose's metainfo (names, flip pairs, skeleton, colours), of the checkpoint or else of the config.

        It has ``unannotated_keypoints``, the names of those that the network has not learned.

        Raises:
            InputError: If there is none for as many keypoints as the network has.
        """
        meta = self._trained_meta
        if meta is None:
            with building(self.config, 'metainfo'), warnings.catch_warnings():
                # MMPose searches for the relative paths of its own datasets, and warns
                warnings.filterwarnings('ignore', 'The metainfo config file')
                meta = dataset_meta_from_config(self.cfg, 'test') or {}
        if meta.get('num_keypoints', 0) != self.num_keypoints:
            raise InputError(
                f'The dataset of {self.config} describes {meta.get("num_keypoints", 0)} keypoints, but the '
                f'network has {self.num_keypoints}; set test_dataloader.dataset.metainfo.'
            )
        names = (self.model.test_cfg or {}).get('unannotated_keypoints', ())
        names = meta.get('unannotated_keypoints', names)
        known = meta.get('keypoint_name2id', {})
        return meta | dict(unannotated_keypoints=[name for name in names if name in known])

    @cached_property
    def annotated(self) -> np.ndarray:
        annotated = np.ones(self.num_keypoints, bool)
        indices = self._meta.get('keypoint_name2id', {})
        annotated[[indices[name] for name in self._meta.get('unannotated_keypoints', ())]] = False
        return annotated

    @cached_property
    def _meta(self) -> dict:
        """The metainfo, {} if there is none that fits."""
        try:
            return self.dataset_meta
        except InputError:
            return {}

    @cached_property
    def _network(self) -> TopdownPoseEstimator:
        # all stacks, even if nobody asks for them: they cost a hundredth, and results do not depend on it
        is_hourglass = isinstance(self.model.backbone, StackedHourglass)
        return reparameterize(self.model, all_stacks=True) if is_hourglass else self.model

    def _read(self, source: Image, boxes: Sequence | None, whole_image: bool) -> _Image:
        """Decode an image, and check its boxes or find them."""
        pixels = read_image(source) if isinstance(source, (str, PathLike)) else as_bgr(source)
        checked = check_boxes(boxes, pixels)
        if boxes is None and not whole_image:
            found = find_people(self, pixels)
            checked = found[:, :4], found[:, 4]
        return _Image(source, pixels, *checked)

    @torch.no_grad()
    def _estimate(self, persons: list, flip_test: bool, scales: Sequence[float], heatmaps: bool) -> list:
        """Return keypoints, scores and perhaps heatmaps and crop for each (image, box)."""
        crops = self._crops(persons)
        total, seen = 0, 0
        for scale in scales:
            scaled = crops if scale == 1 else self._crops(persons, scale)
            stacks, covered = into_frame(self._heatmaps(scaled, flip_test, heatmaps), scale, self._use_udp)
            total, seen = total + stacks, seen + covered
        stacks = total / seen.clamp(min=1e-6)

        samples = [crop['data_samples'] for crop in crops]
        samples = self.model.add_pred_to_datasample(self.model.head.decode(stacks[-1]), None, samples)
        instances = [sample.pred_instances for sample in samples]
        poses = [
            (instance.keypoints[0], instance.keypoint_scores[0] * self.annotated) for instance in instances
        ]
        if not heatmaps:
            return poses
        return [
            (*pose, maps, crop['inputs'].permute(1, 2, 0).numpy())
            for pose, maps, crop in zip(poses, stacks.transpose(0, 1).cpu().numpy(), crops)
        ]

    def _crops(self, persons: list[tuple], scale: float = 1.0) -> list[dict]:
        """Run the config's pipeline for (image, box): ``inputs`` (3, H, W) and ``data_samples``."""
        crops = []
        for image, box in persons:
            box = box + (scale - 1) / 2 * (box - box[[2, 3, 0, 1]])  # about its centre
            crops.append(self.pipeline(dict(img=image, bbox=box[None], bbox_score=np.ones(1, np.float32))))
        return crops

    def _inputs(self, crops: list[dict]) -> Tensor:
        return self.model.data_preprocessor(pseudo_collate(crops))['inputs']

    def _heatmaps(self, crops: list[dict], flip_test: bool, all_stacks: bool) -> Tensor:
        """(S, N, K, h, w) of N crops, or (1, N, K, h, w) of the last stack alone."""
        inputs = self._inputs(crops)
        if flip_test:
            inputs = torch.cat([inputs, inputs.flip(-1)])
        stacks = self._stages(inputs, all_stacks)
        if flip_test:
            flip_indices = self.dataset_meta['flip_indices']
            pairs = (both.chunk(2) for both in stacks)
            stacks = [average_flipped(a, b, flip_indices, self.model.test_cfg) for a, b in pairs]
        return torch.stack(tuple(stacks))

    def _stages(self, inputs: Tensor, all_stages: bool) -> list[Tensor]:
        """Heatmaps (N, K, h, w) of all stages, or of the last one alone."""
        with torch.autocast('cpu', torch.bfloat16, enabled=self.bfloat16):
            stages = self._network.head.forward(self._network.extract_feat(inputs))
        stages = [stages] if isinstance(stages, Tensor) else stages if all_stages else stages[-1:]
        return [stage.float() for stage in stages]

    def _collect(self, image: _Image, persons: list[tuple], heatmaps: bool) -> Poses:
        """Stack the results of one image's persons, of which there may be none."""
        decoder, num_keypoints = self.model.head.decoder, self.num_keypoints
        heatmap = getattr(self.model.head, 'num_stages', 1), num_keypoints, *decoder.heatmap_size[::-1]
        shapes = (num_keypoints, 2), (num_keypoints,), heatmap, (*decoder.input_size[::-1], 3)
        dtypes = np.float32, np.float32, np.float32, np.uint8
        columns = zip(*persons) if persons else [()] * (4 if heatmaps else 2)
        arrays = [np.reshape(c, (-1, *s)).astype(d) for c, s, d in zip(columns, shapes, dtypes)]
        found = dict(zip(('keypoints', 'scores', 'heatmaps', 'crops'), arrays))
        return Poses(
            **found,
            boxes=image.boxes,
            box_scores=image.scores,
            image=image.source,
            image_size=image.pixels.shape[1::-1],
            dataset_meta=self._meta,
            kpt_thr=self.kpt_thr,
        )
