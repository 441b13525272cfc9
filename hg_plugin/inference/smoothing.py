"""Tell who is who in the frames of a video, and smooth their keypoints."""

import math
from collections.abc import Sequence

import numpy as np

from hg_plugin.datasets.detected_boxes import iou

# of the boxes of one person in a frame and the one before
MIN_IOU = 0.3


class PersonIds:
    """Number the persons in the frames of a video.

    A person is the one of the frame before whose box overlaps most, with an IoU of 0.3 or more; there is no
    tracking beyond that.
    """

    def __init__(self):
        self.last: list[tuple[int, np.ndarray]] = []  # number and box of the persons of the frame before
        self.count = 0

    def __call__(self, boxes: np.ndarray) -> list[int]:
        """The numbers of N persons in the next frame, by their boxes (N, 4)."""
        pairs = [
            (overlap, index, number)
            for number, box in self.last
            for index, overlap in enumerate(iou(boxes, box))
            if overlap >= MIN_IOU
        ]
        ids: dict[int, int] = {}
        for _, index, number in sorted(pairs, reverse=True):
            if index not in ids and number not in ids.values():
                ids[index] = number
        for index in range(len(boxes)):
            if index not in ids:
                ids[index] = self.count
                self.count += 1
        numbers = [ids[index] for index in range(len(boxes))]
        self.last = [*zip(numbers, boxes)]
        return numbers


class Smoother:
    """Smooth the keypoints of persons with a One Euro filter each.

    Source: Casiez, Roussel and Vogel, "1 Euro Filter" (CHI 2012). Speed is measured in boxes per second, so
    that the parameters fit large and small persons.

    Args:
        fps: Frames per second.
        min_cutoff: Cutoff frequency at rest, in Hz. Lower values remove more jitter. Defaults to 1.
        beta: Increase of the cutoff frequency with speed. Higher values lag less. Defaults to 4.
    """

    def __init__(self, fps: float, min_cutoff: float = 1.0, beta: float = 4.0):
        self.fps, self.min_cutoff, self.beta = fps, min_cutoff, beta
        self.last: dict[int, tuple] = {}  # keypoints and speed of the persons of the frame before

    def __call__(self, ids: Sequence[int], boxes: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
        """Smooth the next frame.

        Args:
            ids: What :class:`PersonIds` gives.
            boxes: (N, 4), left, top, right and bottom.
            keypoints: (N, K, 2).

        Returns:
            Keypoints (N, K, 2).
        """
        now = {}
        for number, box, points in zip(ids, boxes, keypoints):
            speed = np.zeros_like(points)
            if number in self.last:
                before, speed = self.last[number]
                size = max(box[2] - box[0], box[3] - box[1])
                measured = (points - before) / size * self.fps
                speed = speed + self._share(1.0) * (measured - speed)
                cutoff = self.min_cutoff + self.beta * np.linalg.norm(speed, axis=-1, keepdims=True)
                points = before + self._share(cutoff) * (points - before)
            now[number] = points, speed
        self.last = now
        return np.reshape([points for points, _ in now.values()], keypoints.shape).astype(keypoints.dtype)

    def _share(self, cutoff):
        """The share of a new value in a low-pass filter with this cutoff frequency."""
        return 1 / (1 + self.fps / (2 * math.pi * cutoff))
