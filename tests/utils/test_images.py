import cv2
import numpy as np
import pytest
from PIL import Image

from hg_plugin.utils.images import ImageError, as_bgr, decode_image, read_image, reduce_image


@pytest.fixture(scope='module')
def image():
    """(75, 101, 3)."""
    noise = np.random.RandomState(0).randint(0, 255, (8, 11, 3), np.uint8)
    return cv2.resize(noise, (101, 75), interpolation=cv2.INTER_CUBIC)


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


def test_files_that_are_no_images(image, tmp_path):
    (tmp_path / 'text.jpg').write_text('no image')
    (tmp_path / 'empty.jpg').write_bytes(b'')
    for name, message in [
        ('text', 'is not an image'),
        ('empty', 'is not an image'),
        ('none', 'cannot be read: No such file'),
    ]:
        with pytest.raises(ImageError, match=f'{name}.jpg {message}'):
            read_image(tmp_path / f'{name}.jpg')
    for suffix in ('.jpg', '.png'):
        data = cv2.imencode(suffix, image)[1].tobytes()
        for length in (len(data) - 30, len(data) // 2, 200):
            (tmp_path / f'cut{suffix}').write_bytes(data[:length])
            with pytest.raises(ImageError, match=f'cut{suffix} .*is truncated'):
                read_image(tmp_path / f'cut{suffix}')
            assert decode_image(data[:length], 4) is None
    # cameras write more behind the end of a JPEG
    for more in (b'camera', b'camera' * 1000):
        (tmp_path / 'more.jpg').write_bytes(cv2.imencode('.jpg', image)[1].tobytes() + more)
        assert read_image(tmp_path / 'more.jpg').shape == image.shape


def test_images_are_upright_whatever_the_reduction(image, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera turned to the right
    Image.fromarray(image[..., ::-1]).save(tmp_path / 'turned.jpg', exif=exif)
    assert read_image(tmp_path / 'turned.jpg').shape == (101, 75, 3)
    assert decode_image((tmp_path / 'turned.jpg').read_bytes(), 4).shape == (26, 19, 3)


@pytest.mark.parametrize('reduction', [1, 2, 4, 8])
def test_a_reduced_image_is_the_average(image, reduction):
    expected = reduce_image(image, reduction)
    assert expected.shape == (-(-75 // reduction), -(-101 // reduction), 3)
    np.testing.assert_allclose(expected[0, 0], image[:reduction, :reduction].mean(axis=(0, 1)), atol=1)
    for suffix, tolerance in [('.png', 0), ('.jpg', 2)]:
        found = decode_image(cv2.imencode(suffix, image)[1].tobytes(), reduction)
        assert np.abs(found.astype(int) - expected).mean() <= tolerance
