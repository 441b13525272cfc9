"""Rectangles over parts of a person, as other people and things hide them."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomOcclusion(BaseTransform):
    """Cover rectangles of the cropped image by other parts of it; the keypoints below stay.

    Random erasing (Zhong et al., AAAI 2020) with pixels of the image in place of noise. It goes after
    ``TopdownCrop``.

    Required keys: ``img``.

    Args:
        prob: Share of samples with rectangles. Defaults to 0.5.
        max_count: Largest number of rectangles. Defaults to 3.
        size: Smallest and largest side, as shares of the image's. Defaults to (0.08, 0.3).
    """

    def __init__(self, prob: float = 0.5, max_count: int = 3, size: tuple[float, float] = (0.08, 0.3)):
        self.prob = prob
        self.max_count = max_count
        self.size = size

    def transform(self, results: dict) -> dict:
        if np.random.random() < self.prob:
            source, image = results['img'], results['img'].copy()
            shape = np.array(image.shape[:2])
            for _ in range(np.random.randint(1, self.max_count + 1)):
                height, width = (shape * np.random.uniform(*self.size, 2)).astype(int)
                y, x = np.random.randint(0, shape - (height, width) + 1)
                top, left = np.random.randint(0, shape - (height, width) + 1)
                image[y : y + height, x : x + width] = source[top : top + height, left : left + width]
            results['img'] = image
        return results
