"""From pictures to keypoints, with the flip test and the multi-scale test."""

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from numbers import Integral, Real
from os import PathLike
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmpose.apis.inference import dataset_meta_from_config
from mmpose.models import TopdownPoseEstimator
from torch import Tensor

from hg_plugin.models import StackedHourglass, average_flipped, reparameterize
from hg_plugin.utils.checkpoint import check_weights, read_checkpoint, weights_of
from hg_plugin.utils.config import building, read_config
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.images import PictureError, as_bgr, read_picture

Picture = str | PathLike | np.ndarray


class Poses(NamedTuple):
    """N persons: keypoints (N, K, 2) float32 in the picture's pixels, counted from 0, and scores (N, K) float32."""

    keypoints: np.ndarray
    scores: np.ndarray


class PosesWithHeatmaps(NamedTuple):
    """:class:`Poses`, and what they were read from.

    ``heatmaps`` (N, S, K, h, w) float32 are those of all S stacks, first to last. ``crops`` (N, H, W, 3) uint8 BGR is
    what the network sees; a heatmap covers the same area.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    heatmaps: np.ndarray
    crops: np.ndarray


class PoseEstimator:
    """Finds the keypoints of persons in pictures, with a top-down network that predicts heatmaps.

        estimator = PoseEstimator('configs/hg_2stack_mpii.py', 'hg_2stack_mpii.pth')
        keypoints, scores = estimator('picture.jpg', boxes=[[50, 20, 220, 480]])

    Pictures go through the pipeline of the config's ``test_dataloader`` and keypoints through its codec, so that
    results are those of MMPose's own inferencer for a picture in memory, and of tools/test.py but for the decoding of large JPEGs,
    which are averaged here and there decoded at a smaller size.

    Args:
        config: The config file, as for tools/test.py.
        checkpoint: Its weights.
        device: Where to compute: 'cpu', 'cuda', 'cuda:1', ... Defaults to None: a GPU if torch can use one.
        batch_size: Persons that go through the network at once, twice as many in the flip test; bounds the memory.
            Defaults to 16.

    Attributes:
        cfg: The config.
        model: The trained network, in evaluation mode. A copy computes, which :func:`reparameterize` makes of it at
            the first call.
        num_keypoints: K.

    Raises:
        InputError: for a config that is missing, wrong or of another kind of network, a checkpoint that cannot be read
            or does not fit it, and a device that torch does not have.
    """

    def __init__(
        self,
        config: str | PathLike,
        checkpoint: str | PathLike,
        device: str | torch.device | None = None,
        batch_size: int = 16,
    ):
        if not isinstance(batch_size, Integral) or batch_size < 1:
            raise InputError(f'batch_size is {batch_size!r}; give a whole number of at least 1.')
        self.config = str(config)
        self.batch_size = batch_size
        self.cfg = cfg = read_config(self.config)
        init_default_scope(cfg.get('default_scope', 'mmpose'))
        self.model = self._build(cfg)
        decoder = self.model.head.decoder
        # where a codec also predicts offsets, a keypoint has three channels
        self._channels = 3 if getattr(decoder, 'heatmap_type', None) == 'combined' else 1
        self.num_keypoints = self.model.head.out_channels // self._channels
        with building(self.config, 'test pipeline'):
            self.pipeline = Compose(cfg.test_dataloader.dataset.pipeline)
        self._use_udp = any(getattr(transform, 'use_udp', False) for transform in self.pipeline.transforms)
        meta = self._load(str(checkpoint))
        self._dataset_meta = meta or self._describe(cfg)
        self.device = self._move(device)

    def __call__(
        self,
        image: Picture,
        boxes: Sequence | None = None,
        *,
        flip_test: bool = False,
        scales: Sequence[float] = (1.0,),
        heatmaps: bool = False,
    ) -> Poses | PosesWithHeatmaps:
        """Finds the keypoints of the persons in a picture.

        Args:
            image: A picture's path, or an array: gray, BGR or BGRA, of 8 or 16 bits.
            boxes: (N, 4), one a person: left, top, right and bottom in pixels. A box may reach over the picture's edge.
                The network sees what the config's ``GetBBoxCenterScale`` makes of a box: a quarter more. Defaults to
                None: the whole picture is one person's box.
            flip_test: Also look at the mirrored crop, and average both heatmaps, as the paper does; the config's
                ``test_cfg`` says how (``flip_mode``, ``shift_heatmap``). Defaults to False.
            scales: Sizes of the crop, from 0.1 to 10, relative to the one that the network was trained for: the
                multi-scale test. Heatmaps of other scales are resampled to where they lie at scale 1, and all are averaged; what a
                smaller crop does not see is averaged without it. Yang et al. test an hourglass on MPII so ("Learning
                Feature Pyramids for Human Pose Estimation", ICCV 2017), with ``(.8, .9, 1, 1.1, 1.2, 1.3)`` in their
                code. Defaults to (1., ).
            heatmaps: Also return the heatmaps of every stack. Defaults to False.

        Returns:
            :class:`Poses`, or :class:`PosesWithHeatmaps` where ``heatmaps`` are asked for.

        Raises:
            PictureError: for a file or an array that is no picture, and a box that is wrong or outside the picture.
            InputError: for wrong scales, and where the config's data set or codec does not allow what is asked for.
        """
        return next(self.stream([(image, boxes)], flip_test=flip_test, scales=scales, heatmaps=heatmaps))

    def stream(
        self,
        pictures: Iterable[tuple[Picture, Sequence | None]],
        *,
        flip_test: bool = False,
        scales: Sequence[float] = (1.0,),
        heatmaps: bool = False,
    ) -> Iterator[Poses | PosesWithHeatmaps]:
        """As a call for every picture, but with persons of several pictures in a batch.

        Args:
            pictures: Pictures with their boxes, or with None, as for a call. At most ``batch_size`` of them are
                held at a time.
            flip_test, scales, heatmaps: As for a call.

        Yields:
            As a call does, for every picture in turn.
        """
        scales = list(scales) if np.iterable(scales) else scales
        self._check(flip_test, scales, heatmaps)
        counts = deque()  # persons of the pictures that were read and not yielded yet
        done = deque()

        def persons():
            for image, boxes in pictures:
                image = read_picture(image) if isinstance(image, (str, PathLike)) else as_bgr(image)
                boxes = check_boxes(boxes, image)
                counts.append(len(boxes))
                # a picture without persons takes a place too, or any number of them would wait for the next person
                yield from ((image, box) for box in boxes) if len(boxes) else [None]

        persons = persons()
        while True:
            batch = list(islice(persons, self.batch_size))
            if any(batch):
                done += self._estimate([person for person in batch if person], flip_test, scales, heatmaps)
            while counts and len(done) >= counts[0]:
                yield self._collect([done.popleft() for _ in range(counts.popleft())], heatmaps)
            if len(batch) < self.batch_size:
                return

    @torch.no_grad()
    def inputs(self, image: Picture, boxes: Sequence | None = None) -> Tensor:
        """What the network sees of the persons in a picture, given as for a call: (N, 3, H, W), normalised."""
        image = as_bgr(image) if isinstance(image, np.ndarray) else read_picture(image)
        return self._inputs([self._crop(image, box) for box in check_boxes(boxes, image)])

    @cached_property
    def _network(self) -> TopdownPoseEstimator:
        # all stacks even where nobody asks for them: they cost a hundredth, and results do not depend on who asks
        is_hourglass = isinstance(self.model.backbone, StackedHourglass)
        return reparameterize(self.model, all_stacks=True) if is_hourglass else self.model

    @property
    def dataset_meta(self) -> dict:
        """MMPose's metainfo: the keypoints' names, symmetry, skeleton, colours; from the checkpoint or else the config.

        Raises:
            InputError: where both have none, or one for another number of keypoints than the network's.
        """
        described = self._dataset_meta.get('num_keypoints', 0)
        if described != self.num_keypoints:
            raise InputError(
                f'The data set of {self.config} describes {described} keypoints, but the network has '
                f'{self.num_keypoints}, so that their names and symmetry are not known; set '
                'test_dataloader.dataset.metainfo.'
            )
        return self._dataset_meta

    def _build(self, cfg: Config) -> TopdownPoseEstimator:
        for key in ('model', 'test_dataloader'):
            if cfg.get(key) is None:
                raise InputError(
                    f'The config file {self.config} has no {key}, which inference needs; set it.'
                )
        with building(self.config, 'model'):
            model = revert_sync_batchnorm(MODELS.build(cfg.model))
        if not isinstance(model, TopdownPoseEstimator):
            raise InputError(
                f'{self.config} is of a {type(model).__name__}; give a config of a TopdownPoseEstimator.'
            )
        decoder = getattr(model.head, 'decoder', None) if model.with_head else None
        if not hasattr(decoder, 'heatmap_size'):
            raise InputError(
                f'{self.config}: model.head.decoder is {type(decoder).__name__}; '
                'give a codec of heatmaps, such as MSRAHeatmap.'
            )
        return model

    def _load(self, checkpoint: str) -> dict | None:
        """Loads the weights; returns the metainfo that training left beside them, if any."""
        content = read_checkpoint(checkpoint)
        state = weights_of(content, checkpoint)
        check_weights(self.model, state, checkpoint)
        self.model.load_state_dict(state)
        meta = content.get('meta')
        described = meta.get('dataset_meta') if isinstance(meta, dict) else None
        return described if isinstance(described, dict) and 'num_keypoints' in described else None

    def _describe(self, cfg: Config) -> dict:
        """The metainfo of the config's data set; empty where that has none."""
        try:
            with warnings.catch_warnings():
                # MMPose's data sets name theirs by a path in its repository, and it is told of that it had to search
                warnings.filterwarnings('ignore', 'The metainfo config file')
                return dataset_meta_from_config(cfg, 'test') or {}
        except (OSError, KeyError, TypeError, AssertionError) as error:
            raise InputError(
                f'{self.config}: test_dataloader.dataset.metainfo cannot be used ({error}); correct it.'
            ) from error

    def _move(self, device: str | torch.device | None) -> torch.device:
        try:
            if device is None:
                device = 'cuda' if torch.cuda.is_available() else 'cpu'
            device = torch.device(device)
            torch.zeros(1, device=device).item()  # on the device 'meta' there is nothing to get back
            self.model.to(device).eval()
        except (RuntimeError, AssertionError, TypeError) as error:  # torch without CUDA asserts
            reason = (
                'it names none' if isinstance(error, TypeError) else str(error).splitlines()[0].rstrip('.')
            )
            raise InputError(
                f'The device {str(device)!r} cannot be used ({reason}); give another, such as cpu.'
            ) from error
        return device

    def _check(self, flip_test: bool, scales: Sequence[float], heatmaps: bool) -> None:
        if not isinstance(flip_test, (bool, np.bool_)):
            raise InputError(f'flip_test is {flip_test!r}; give True or False.')
        if (
            not isinstance(scales, list)
            or not scales
            or not all(isinstance(scale, Real) and 0.1 <= scale <= 10 for scale in scales)
        ):
            raise InputError(
                f'scales are {scales!r}; give a list of at least one, all from 0.1 to 10, such as [0.8, 1, 1.2].'
            )
        if self._channels > 1 and (heatmaps or any(scale != 1 for scale in scales)):
            raise InputError(
                f'The codec of {self.config} predicts offsets beside heatmaps, which can be neither drawn '
                'nor averaged over scales; leave out heatmaps and scales.'
            )
        if flip_test:
            self.dataset_meta['flip_indices']

    @torch.no_grad()
    def _estimate(
        self, persons: list, flip_test: bool, scales: Sequence[float], heatmaps: bool
    ) -> list[tuple]:
        """What :class:`Poses` or :class:`PosesWithHeatmaps` hold of each of N persons, given as (picture, box)."""
        frame = [self._crop(image, box) for image, box in persons]
        total, seen = 0, 0
        for scale in scales:
            crops = (
                frame if scale == 1 else [self._crop(image, _resize(box, scale)) for image, box in persons]
            )
            stacks, visible = self._into_frame(self._heatmaps(crops, flip_test, all_stacks=heatmaps), scale)
            total, seen = total + stacks, seen + visible
        stacks = total / seen.clamp(min=1e-6)

        samples = [crop['data_samples'] for crop in frame]
        samples = self.model.add_pred_to_datasample(self.model.head.decode(stacks[-1]), None, samples)
        found = [
            (sample.pred_instances.keypoints[0], sample.pred_instances.keypoint_scores[0])
            for sample in samples
        ]
        if not heatmaps:
            return found
        return [
            (*pose, maps, crop['inputs'].permute(1, 2, 0).numpy())
            for pose, maps, crop in zip(found, stacks.transpose(0, 1).cpu().numpy(), frame)
        ]

    def _crop(self, image: np.ndarray, box: np.ndarray) -> dict:
        """What the config's pipeline makes of a person: ``inputs`` (3, H, W) and ``data_samples``."""
        return self.pipeline(dict(img=image, bbox=box[None], bbox_score=np.ones(1, np.float32)))

    def _inputs(self, crops: list[dict]) -> Tensor:
        return self.model.data_preprocessor(pseudo_collate(crops))['inputs']

    def _heatmaps(self, crops: list[dict], flip_test: bool, all_stacks: bool) -> Tensor:
        """(S, N, K, h, w) of N crops, or (1, N, K, h, w) of the last stack alone."""
        inputs = self._inputs(crops)
        if flip_test:
            inputs = torch.cat([inputs, inputs.flip(-1)])
        stacks = self._network.head.forward(self._network.extract_feat(inputs))
        stacks = [stacks] if isinstance(stacks, Tensor) else stacks if all_stacks else stacks[-1:]
        if flip_test:
            flip_indices = self.dataset_meta['flip_indices']
            stacks = [average_flipped(*both.chunk(2), flip_indices, self.model.test_cfg) for both in stacks]
        return torch.stack(tuple(stacks))

    def _into_frame(self, stacks: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """Resamples heatmaps (S, N, K, h, w) of crops of this scale to where they lie at scale 1; 0 outside.

        Returns:
            The heatmaps, and (h, w) how much of each pixel these crops see, from 0 to 1.
        """
        height, width = stacks.shape[-2:]
        if scale == 1:
            return stacks, stacks.new_ones(height, width)

        def positions(size):
            # UDP's crops turn about the middle between the first and the last pixel, the others half a pixel beside it
            middle = (size - 1) / 2 if self._use_udp else size / 2
            here = (torch.arange(size, device=stacks.device) - middle) / scale + middle
            return here * 2 / (size - 1) - 1

        grid = torch.stack(torch.meshgrid(positions(height), positions(width), indexing='ij')[::-1], dim=-1)[
            None
        ]

        def resample(maps):
            return F.grid_sample(maps, grid.expand(len(maps), -1, -1, -1), align_corners=True)

        return (
            resample(stacks.flatten(0, 1)).unflatten(0, stacks.shape[:2]),
            resample(stacks.new_ones(1, 1, height, width))[0, 0],
        )

    def _collect(self, persons: list[tuple], heatmaps: bool) -> Poses | PosesWithHeatmaps:
        """One picture's result. ``persons`` may be empty."""
        kind = PosesWithHeatmaps if heatmaps else Poses
        if persons:
            return kind(*(np.stack(column).astype(dtype) for column, dtype in zip(zip(*persons), DTYPES)))
        decoder = self.model.head.decoder
        num_stacks, (width, height) = getattr(self.model.head, 'num_stages', 1), decoder.heatmap_size
        shapes = (
            (self.num_keypoints, 2),
            (self.num_keypoints,),
            (num_stacks, self.num_keypoints, height, width),
            (*decoder.input_size[::-1], 3),
        )
        return kind(*(np.zeros((0, *shape), dtype) for shape, dtype, _ in zip(shapes, DTYPES, kind._fields)))


LONGEST = 2**15 - 1  # OpenCV counts pixels with 16 bits where it warps
DTYPES = np.float32, np.float32, np.float32, np.uint8  # of PosesWithHeatmaps


def check_boxes(boxes: Sequence | None, image: np.ndarray) -> np.ndarray:
    """Boxes as (N, 4) float32; the whole picture's (1, 4) for None.

    Raises:
        PictureError: for boxes that are none, and one that is empty, inverted or outside the picture, by its index.
    """
    height, width = image.shape[:2]
    if boxes is None:
        boxes = [[0, 0, width, height]]
    try:
        boxes = np.asarray(boxes, np.float32)
        boxes = boxes.reshape(-1, 4) if not boxes.size else boxes
    except (TypeError, ValueError, OverflowError) as error:
        raise PictureError(
            'The boxes are not numbers of the shape (N, 4); give left, top, right and bottom of each.'
        ) from error
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise PictureError(
            f'The boxes have the shape {boxes.shape}; give (N, 4): left, top, right and bottom of each.'
        )
    if len(boxes) and max(width, height) > LONGEST:
        raise PictureError(
            f'The picture of {width}x{height} pixels has a side of more than {LONGEST:,} pixels, more than OpenCV '
            'can cut crops from; make it smaller.'
        )
    for index, (left, top, right, bottom) in enumerate(boxes.tolist()):
        if not right > left or not bottom > top or not np.isfinite(boxes[index]).all():  # nor with NaNs
            problem = 'is empty or inverted; give left, top, right and bottom in this order'
        elif max(right - left, bottom - top) > LONGEST:
            problem = (
                f'has a side of more than {LONGEST:,} pixels; give pixels of this picture of {width}x{height}'
            )
        elif right <= 0 or bottom <= 0 or left >= width or top >= height:
            problem = f'lies outside the picture of {width}x{height} pixels; give pixels of this picture'
        else:
            continue
        raise PictureError(f'Box {index}, [{left:g}, {top:g}, {right:g}, {bottom:g}], {problem}.')
    return boxes


def _resize(box: np.ndarray, scale: float) -> np.ndarray:
    """The box (4, ) with its sides multiplied, about its centre."""
    center, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * scale
    return np.concatenate([center - half, center + half]).astype(np.float32)
