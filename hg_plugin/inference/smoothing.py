"""Tell who is who in the frames of a video, and smooth their keypoints."""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from hg_plugin.datasets.detected_boxes import iou

# of the boxes of one person in a frame and the one before
MIN_IOU = 0.3
# cutoff frequency at rest, in Hz: less removes more jitter; and its increase with speed: more lags less
MIN_CUTOFF, BETA = 1.0, 4.0


class PersonIds:
    """Number the persons in the frames of a video.

    A person is the one of the frame before whose box overlaps most, with an IoU of 0.3 or more; there is no
    tracking beyond that.
    """

    def __init__(self):
        self.boxes, self.ids = np.zeros((0, 4)), []  # of the frame before
        self.new = itertools.count()

    def __call__(self, boxes: np.ndarray) -> list[int]:
        """The numbers of N persons in the next frame, by their boxes (N, 4)."""
        overlaps = np.reshape([iou(self.boxes, box) for box in boxes], (len(boxes), len(self.boxes)))
        known = {
            index: self.ids[before]
            for index, before in zip(*linear_sum_assignment(overlaps, maximize=True))
            if overlaps[index, before] >= MIN_IOU
        }
        self.boxes = boxes
        self.ids = [known[index] if index in known else next(self.new) for index in range(len(boxes))]
        return self.ids


class Smoother:
    """Smooth the keypoints of persons with a One Euro filter each.

    Source: Casiez, Roussel and Vogel, "1 Euro Filter" (CHI 2012). Speed is measured in boxes per second, so
    that the parameters fit large and small persons.

    Args:
        fps: Frames per second.
    """

    def __init__(self, fps: float):
        self.fps = fps
        self.last: dict[int, tuple] = {}  # keypoints and speed of the persons of the frame before

    def __call__(self, ids: Sequence[int], boxes: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
        """Smooth the keypoints (N, K, 2) of persons in the next frame, by their numbers and boxes (N, 4)."""
        now = {}
        for number, box, points in zip(ids, boxes, keypoints):
            speed = np.zeros_like(points)
            if number in self.last:
                before, speed = self.last[number]
                size = max(box[2] - box[0], box[3] - box[1])
                measured = (points - before) / size * self.fps
                speed = speed + self._share(1.0) * (measured - speed)
                cutoff = MIN_CUTOFF + BETA * np.linalg.norm(speed, axis=-1, keepdims=True)
                points = before + self._share(cutoff) * (points - before)
            now[number] = points, speed
        self.last = now
        return np.reshape([points for points, _ in now.values()], keypoints.shape).astype(keypoints.dtype)

    def _share(self, cutoff):
        """The share of a new value in a low-pass filter with this cutoff frequency."""
        return 1 / (1 + self.fps / (2 * math.pi * cutoff))
