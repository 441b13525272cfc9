"""Skeletons on pictures, for the hooks and the inference command."""
from typing import Optional, Sequence, Tuple

import cv2
import numpy as np
from mmpose.structures.bbox import get_warp_matrix


def crop_person(image: np.ndarray, center: np.ndarray, scale: np.ndarray, size: int) -> Tuple[np.ndarray, np.ndarray]:
    """The square of ``max(scale)`` pixels around ``center``, as (size, size, 3), and the (2, 3) matrix that maps picture pixels to it."""
    matrix = get_warp_matrix(np.asarray(center), np.full(2, np.max(scale)), 0., (size, size))
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR), matrix


def draw_skeleton(image: np.ndarray,
                  keypoints: np.ndarray,
                  visible: np.ndarray,
                  dataset_meta: dict,
                  thickness: Optional[int] = None) -> np.ndarray:
    """Draws one person in the data set's colours, in place.

    Args:
        image: (H, W, 3) BGR.
        keypoints: (K, 2) in pixels.
        visible: (K,) truth values: which keypoints are drawn.
        dataset_meta: MMPose's metainfo with ``skeleton_links``, ``skeleton_link_colors`` and ``keypoint_colors`` (RGB).
        thickness: Of the lines, in pixels. Defaults to 1/128 of the picture's longer side.

    Returns:
        The picture that was given.
    """
    thickness = thickness or max(1, round(max(image.shape[:2]) / 128))
    points = [tuple(int(round(float(value) * 16)) for value in point) for point in keypoints]  # cv2's 1/16 pixels

    def bgr(color: Sequence[int]) -> Tuple[int, ...]:
        return tuple(int(value) for value in color[::-1])

    for (start, end), color in zip(dataset_meta['skeleton_links'], dataset_meta['skeleton_link_colors']):
        if visible[start] and visible[end]:
            cv2.line(image, points[start], points[end], bgr(color), thickness, cv2.LINE_AA, shift=4)
    for point, drawn, color in zip(points, visible, dataset_meta['keypoint_colors']):
        if drawn:
            cv2.circle(image, point, 16 * (thickness + 1), bgr(color), -1, cv2.LINE_AA, shift=4)
    return image
