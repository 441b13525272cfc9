import numpy as np
import pytest

from hg_plugin.utils.images import ImageError, as_bgr


@pytest.mark.parametrize(
    'array, kind',
    [
        (None, 'a NoneType'),
        (np.zeros((4, 4, 3)), r'a ndarray of float64 and shape \(4, 4, 3\)'),
        (np.zeros((4, 4, 2), np.uint8), r'a ndarray of uint8 and shape \(4, 4, 2\)'),
        (np.zeros((0, 4, 3), np.uint8), r'a ndarray of uint8 and shape \(0, 4, 3\)'),
        (np.zeros(4, np.uint8), r'a ndarray of uint8 and shape \(4,\)'),
    ],
)
def test_arrays_that_are_no_images(array, kind):
    with pytest.raises(ImageError, match=f'The image is {kind}; give a path, or a uint8'):
        as_bgr(array)
