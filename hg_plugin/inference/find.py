"""Find the persons in an image with the pose network alone.

A network that was trained on crops of a person, and on crops without one, tells both by its scores. A coarse
pass shows it the whole image at several sizes, where all windows of a size share its work. The best windows
are cropped and looked at, then the best of those that are not inside the boxes found so far, and the best of
all again with the box around their keypoints. The score of a box is the mean score of the keypoints around
which it is drawn; the estimator looks at it once more. The cost depends on the image's shape, not on its
resolution.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from hg_plugin.datasets.detected_boxes import iou
from hg_plugin.utils.heatmaps import heatmap_peaks

if TYPE_CHECKING:
    from .pose_estimator import PoseEstimator

# sides of windows, as shares of the image's longer side; windows of a side are a quarter of it apart
SIDES = np.geomspace(1.1, 0.14, 7)
STEP = 1 / 4
# how many windows are cropped in each round after the coarse pass, and how many boxes around keypoints then
ROUNDS, AGAIN = (30, 30), 16
# lowest score of a person
MIN_PERSON = 0.42
# of two windows with a larger IoU the worse is dropped, and of two persons who cover more of each other
MAX_IOU, MAX_COVERED = 0.4, 0.4
# of two persons who cover each other the one with the larger product of score and area to this power is kept
AREA_POWER = 0.2
# windows with a larger share inside a box that was found are not looked at
MAX_INSIDE = 0.6
# a person's box is this much larger than the keypoints with this score or more
MARGIN, MIN_KEYPOINT = 1.15, 0.1
# frames of a video in which persons are only looked for where they were in the frame before
FOLLOWED = 9


@torch.no_grad()
def find_people(estimator: 'PoseEstimator', image: np.ndarray) -> np.ndarray:
    """Find the persons in an image (H, W, 3).

    Returns:
        (N, 5) float32: left, top, right, bottom and score, the best first.
    """
    longer = max(image.shape[:2])
    shrink = min(1.0, min(estimator.model.head.decoder.input_size) / (SIDES[-1] * longer))
    if shrink < 1:
        image = cv2.resize(image, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    windows = [_coarse(estimator, image, share * shrink * longer) for share in SIDES]
    keypoints, scores = (np.concatenate(arrays)[:, estimator.annotated] for arrays in zip(*windows))
    boxes, means = _boxes(image, keypoints, scores), scores.mean(axis=1)
    looks: list[tuple[np.ndarray, np.ndarray]] = []
    for number in ROUNDS:
        best = list(islice(_nms(boxes, means), number))
        looks.append(_look(estimator, image, boxes[best]))
        # a person who stands out has dozens of windows with parts, better than the best of a small one
        found = _boxes(image, *looks[-1])[looks[-1][1].mean(axis=1) >= MIN_PERSON]
        left = np.ones(len(boxes), bool)
        left[best] = False
        for box in found:
            left &= _intersection(boxes, box) <= MAX_INSIDE * _area(boxes)
        boxes, means = boxes[left], means[left]
    keypoints, scores = map(np.concatenate, zip(*looks))
    boxes = _boxes(image, keypoints, scores)
    boxes = boxes[list(islice(_nms(boxes, scores.mean(axis=1)), AGAIN))]
    keypoints, scores = _look(estimator, image, boxes)
    return _persons(_boxes(image, keypoints, scores), scores) / np.float32([shrink] * 4 + [1])


class Follower:
    """Find the persons in the frames of a video, mostly where they were in the frame before."""

    def __init__(self, estimator: 'PoseEstimator'):
        self.estimator = estimator
        self.boxes, self.left = np.zeros((0, 5), np.float32), 0

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """The boxes and scores (N, 5) of the next frame (H, W, 3)."""
        if self.left and len(self.boxes):
            self.left -= 1
            keypoints, scores = _look(self.estimator, frame, self.boxes[:, :4])
            self.boxes = _persons(_boxes(frame, keypoints, scores), scores)
        else:
            self.left = FOLLOWED
            self.boxes = find_people(self.estimator, frame)
        return self.boxes


def _coarse(estimator: 'PoseEstimator', image: np.ndarray, side: float) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (N, K, 2) in the image and scores (N, K) of all windows of this side."""
    decoder = estimator.model.head.decoder
    (width, height), (columns, rows) = decoder.input_size, decoder.heatmap_size
    scale, stride = min(width, height) / side, width // columns
    size = [max(1, round(edge * scale)) for edge in image.shape[1::-1]]
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    before = width // 8  # so that windows reach over the edge by an eighth
    # the network halves sizes down to a 64th
    canvas = [-(-max(edge + 2 * before, least) // 64) * 64 for edge, least in zip(size, (width, height))]
    right, bottom = (canvas[axis] - size[axis] - before for axis in (0, 1))
    padded = cv2.copyMakeBorder(small, before, bottom, before, right, cv2.BORDER_CONSTANT)
    inputs = dict(inputs=[torch.from_numpy(padded).permute(2, 0, 1)], data_samples=[])
    heatmaps = estimator._stages(estimator.model.data_preprocessor(inputs)['inputs'], all_stages=False)[-1]
    heatmaps = heatmaps[0, :: estimator._channels]
    step = max(1, round(STEP * columns))
    tiles = heatmaps.unfold(1, rows, step).unfold(2, columns, step).permute(1, 2, 0, 3, 4)
    if any(hasattr(module, 'to_heatmaps') for module in estimator.model.head.modules()):
        # heatmaps that a softmax makes: those of a window have the sum of the whole image's
        tiles = tiles * (heatmaps.sum((1, 2)) / tiles.sum((3, 4)).clamp(min=1e-12))[..., None, None]
    y, x = np.indices(tiles.shape[:2]).reshape(2, -1)
    scores, peaks = heatmap_peaks(tiles.flatten(0, 1))
    corners = np.stack([x, y], axis=1)[:, None] * step
    return ((peaks.cpu().numpy() + corners) * stride - before) / scale, scores.cpu().numpy()


def _look(estimator: 'PoseEstimator', image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (N, K, 2) and scores (N, K) of boxes (N, 4), of the K that the network has learned."""
    poses = estimator(image, boxes)
    # a codec refines the peaks of flat heatmaps to anywhere
    corners, sizes = boxes[:, None, :2], boxes[:, None, 2:] - boxes[:, None, :2]
    keypoints = poses.keypoints[:, estimator.annotated].clip(corners - sizes, corners + 2 * sizes)
    return keypoints, poses.scores[:, estimator.annotated]


def _persons(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Boxes and mean scores (N, 5) of the boxes (M, 4) with keypoints' scores (M, K) that hold persons."""
    # a part of a person may have a better mean, but has not all of the keypoints, and is smaller
    rank = np.quantile(scores, 0.25, axis=1) * _area(boxes) ** AREA_POWER
    kept = list(_nms(boxes, rank, _covered, MAX_COVERED))
    found = np.column_stack([boxes, scores.mean(axis=1)])[kept].astype(np.float32)
    return found[found[:, 4] >= MIN_PERSON]


def _boxes(image: np.ndarray, keypoints: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Squares (N, 4) around the keypoints (N, K, 2) that are sure, or all if these are few, on the image."""
    sure = scores >= MIN_KEYPOINT
    sure |= sure.sum(axis=1, keepdims=True) < 5
    low = np.where(sure[..., None], keypoints, np.inf).min(axis=1)
    high = np.where(sure[..., None], keypoints, -np.inf).max(axis=1)
    center, half = (low + high) / 2, MARGIN / 2 * (high - low).max(axis=1, keepdims=True).clip(min=2)
    center = center.clip(0, image.shape[1::-1])
    return np.concatenate([center - half, center + half], axis=1)


def _nms(
    boxes: np.ndarray, scores: np.ndarray, overlap: Callable = iou, most: float = MAX_IOU
) -> Iterator[int]:
    """Non-maximum suppression: indices of the boxes that do not overlap with better ones, the best first."""
    kept: list[int] = []
    for index in np.argsort(-scores).tolist():
        if (overlap(boxes[kept], boxes[index]) <= most).all():
            kept.append(index)
            yield index


def _covered(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Intersection over the area of the smaller one, (N,), of boxes (N, 4) with one."""
    return _intersection(boxes, box) / np.minimum(_area(boxes), _area(box))


def _intersection(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Areas (N,) of boxes (N, 4) that are in a box (4,)."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    return sides.clip(min=0).prod(axis=1)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2]).prod(axis=-1)
