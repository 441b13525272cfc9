"""Windows without a person, from which a network learns what is none."""

from collections.abc import Mapping

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from hg_plugin.utils.images import read_image

KINDS = dict(background=0.55, large=0.25, part=0.2)


@TRANSFORMS.register_module()
class RandomNegative(BaseTransform):
    """Replace a person's box by a window that a person does not fill, and mark the keypoints as absent.

    A network that has seen persons alone finds one everywhere. With negatives, its scores tell windows with a
    person from others, so that it can look for people in a whole image.

    There are three kinds of windows, in shares of the person's box:

    - ``background``: anywhere in the image, of 0.4 to 1.2 boxes, with at most three of the keypoints inside;
    - ``large``: about the person, of 2 to 3.2 boxes; in every other one, the image is mirrored beyond its
      edges, so that an empty margin does not give a negative away;
    - ``part``: about one of the keypoints, of 0.15 to 0.35 boxes.

    The visibility of keypoints becomes negative: annotated as absent, in contrast to 0, not annotated. Their
    target heatmaps are empty, and count; see :class:`hg_plugin.models.SpatialCrossEntropyLoss`.

    It goes between ``GetBBoxCenterScale`` and ``TopdownCrop``, for images in files.

    Required keys: ``bbox_center``, ``bbox_scale``, ``keypoints``, ``keypoints_visible``, ``img_path``.

    Args:
        prob: Share of samples that become negatives. Defaults to 0.2.
        weight: What an absent keypoint counts, where a visible one counts 1. Defaults to 0.5.
        kinds: Shares of the three kinds, in any unit. Defaults to 0.55, 0.25 and 0.2.
    """

    def __init__(self, prob: float = 0.2, weight: float = 0.5, kinds: Mapping[str, float] = KINDS):
        self.prob = prob
        self.weight = weight
        self.kinds = [*kinds]
        self.shares = np.array([*kinds.values()]) / sum(kinds.values())

    def transform(self, results: dict) -> dict:
        if np.random.random() >= self.prob:
            return results
        visible = results['keypoints_visible'].copy()
        # KeypointConverter gives visibility and weight
        visibility = visible if visible.ndim == 2 else visible[..., 0]
        keypoints = results['keypoints'][visibility > 0]
        window = self._window(results, keypoints)
        if window is None:
            return results
        center, scale = window
        visibility *= -self.weight
        return {
            **results,
            'bbox_center': center[None].astype(np.float32),
            'bbox_scale': (results['bbox_scale'] * scale).astype(np.float32),
            'keypoints_visible': visible,
        }

    def _window(self, results: dict, keypoints: np.ndarray) -> tuple[np.ndarray, float] | None:
        """A center, and a factor of the box; None if the person fills the image."""
        center, box = results['bbox_center'][0], results['bbox_scale'][0]
        kind = np.random.choice(self.kinds, p=self.shares)
        if kind == 'large':
            if np.random.random() < 0.5:
                image, margin = read_image(results['img_path']), int(2 * box.max())
                results['img'] = cv2.copyMakeBorder(image, *[margin] * 4, cv2.BORDER_REFLECT)
                center = center + margin
            return center + box * np.random.normal(0, 0.25, 2), np.random.uniform(2, 3.2)
        if kind == 'part':
            return keypoints[np.random.randint(len(keypoints))], np.random.uniform(0.15, 0.35)
        # the crop takes it from here
        results['img'] = read_image(results['img_path'])
        height, width = results['img'].shape[:2]
        for _ in range(20):
            scale = np.random.uniform(0.4, 1.2)
            center = np.random.uniform((0, 0), (width, height))
            if (np.abs(keypoints - center) < scale * box / 2).all(axis=1).sum() <= 3:
                return center, scale
        return None
