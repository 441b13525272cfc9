"""Smooth keypoints over the frames of a video."""

import math

import numpy as np


class Smoother:
    """Smooth the keypoints of persons with a One Euro filter each.

    A person is the one of the frame before whose box overlaps most, with an IoU of 0.3 or more; there is no
    tracking beyond that. Source: Casiez, Roussel and Vogel, "1 Euro Filter" (CHI 2012). Speed is measured in
    boxes per second, so that the parameters fit large and small persons.

    Args:
        fps: Frames per second.
        min_cutoff: Cutoff frequency at rest, in Hz. Lower values remove more jitter. Defaults to 1.
        beta: Increase of the cutoff frequency with speed. Higher values lag less. Defaults to 4.
    """

    def __init__(self, fps: float, min_cutoff: float = 1.0, beta: float = 4.0):
        self.fps, self.min_cutoff, self.beta = fps, min_cutoff, beta
        self.last: list[tuple] = []  # (number, box, keypoints, speed) of the persons of the frame before
        self.count = 0

    def __call__(self, boxes: np.ndarray, keypoints: np.ndarray) -> tuple[np.ndarray, list[int]]:
        """Smooth the next frame.

        Args:
            boxes: (N, 4), left, top, right and bottom.
            keypoints: (N, K, 2).

        Returns:
            Keypoints (N, K, 2), and N numbers of the persons, the same as in the frame before.
        """
        matches = self._match(boxes)
        now = []
        for index, (box, points) in enumerate(zip(boxes, keypoints)):
            if index in matches:
                number, _, before, speed = matches[index]
                size = max(box[2] - box[0], box[3] - box[1])
                measured = (points - before) / size * self.fps
                speed = speed + self._share(1.0) * (measured - speed)
                cutoff = self.min_cutoff + self.beta * np.linalg.norm(speed, axis=-1, keepdims=True)
                points = before + self._share(cutoff) * (points - before)
            else:
                number, speed = self.count, np.zeros_like(points)
                self.count += 1
            now.append((number, box, points, speed))
        self.last = now
        smoothed = np.reshape([points for _, _, points, _ in now], keypoints.shape)
        return smoothed.astype(keypoints.dtype), [number for number, *_ in now]

    def _share(self, cutoff):
        """The share of a new value in a low-pass filter with this cutoff frequency."""
        return 1 / (1 + self.fps / (2 * math.pi * cutoff))

    def _match(self, boxes: np.ndarray) -> dict[int, tuple]:
        """The persons of the frame before by the number of their box, those that overlap most first."""
        pairs = [
            (_iou(box, last[1]), i, j) for i, box in enumerate(boxes) for j, last in enumerate(self.last)
        ]
        matches, taken = {}, set()
        for iou, i, j in sorted(pairs, reverse=True):
            if iou >= 0.3 and i not in matches and j not in taken:
                matches[i] = self.last[j]
                taken.add(j)
        return matches


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = np.prod(np.maximum(sides, 0))
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))
