import io

import cv2
import numpy as np
import pytest
from PIL import Image

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.images import decode_image, read_image, reduce_image


def test_it_decodes_as_opencv_does(real_data):
    path = sorted(real_data('mpii_test_pictures').glob('*.jpg'))[0]
    data = path.read_bytes()
    assert np.array_equal(decode_image(data), cv2.imread(str(path)))
    for reduction in (2, 4, 8):
        flag = getattr(cv2, f'IMREAD_REDUCED_COLOR_{reduction}')
        assert np.array_equal(read_image(path, reduction), cv2.imread(str(path), flag))


def test_truncated_data_is_refused(real_data, tmp_path):
    data = sorted((real_data('mpii_test_pictures')).glob('*.jpg'))[0].read_bytes()
    whole = decode_image(data, 2)
    assert np.array_equal(decode_image(data + b'x' * 2000, 2), whole)  # cameras append what they like
    png = cv2.imencode('.png', whole)[1].tobytes()
    for content in (data[: len(data) // 2], data[:-1000], data[:100], png[: len(png) // 2], b'', b'no image'):
        for reduction in (1, 2):
            assert decode_image(content, reduction) is None
        (tmp_path / 'a.jpg').write_bytes(content)
        with pytest.raises(InputError, match='a.jpg is not an image or is truncated'):
            read_image(tmp_path / 'a.jpg')
    with pytest.raises(InputError, match='b.jpg cannot be read: No such file'):
        read_image(tmp_path / 'b.jpg')


@pytest.mark.parametrize('reduction', [2, 4, 8])
def test_other_formats_are_averaged_as_a_jpeg_is(real_data, reduction):
    data = sorted((real_data('mpii_sample') / 'images').iterdir())[0].read_bytes()
    png = cv2.imencode('.png', decode_image(data))[1].tobytes()
    assert np.abs(decode_image(png, reduction).astype(int) - decode_image(data, reduction)).mean() < 1.5


@pytest.mark.parametrize('width, height', [(1, 1), (13, 22), (32, 40)])
def test_any_size_shrinks_to_a_jpegs(width, height):
    image = np.full((height, width, 3), 90, np.uint8)
    data = cv2.imencode('.jpg', image)[1].tobytes()
    for reduction in (2, 4, 8):
        reduced = reduce_image(image, reduction)
        assert reduced.shape == decode_image(data, reduction).shape and (reduced == 90).all()


@pytest.mark.parametrize('size', [(1607, 1203), (1600, 1200)], ids=['odd', 'multiple of 8'])
@pytest.mark.parametrize('orientation', range(2, 9))
def test_a_rotated_image_is_upright_and_not_shifted(size, orientation):
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    upright = Image.fromarray(cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC))
    # the stored image, which the orientation of its EXIF data turns upright
    rotated = upright.transpose(
        {
            2: Image.Transpose.FLIP_LEFT_RIGHT,
            3: Image.Transpose.ROTATE_180,
            4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE,
            6: Image.Transpose.ROTATE_90,
            7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_270,
        }[orientation]
    )

    def jpeg(image, **kwargs):
        file = io.BytesIO()
        image.save(file, 'jpeg', quality=95, **kwargs)
        return file.getvalue()

    exif = Image.Exif()
    exif[0x0112] = orientation
    expected, found = jpeg(upright), jpeg(rotated, exif=exif)
    assert decode_image(found).shape == (size[1], size[0], 3)
    for reduction in (1, 2, 4, 8):
        a, b = decode_image(expected, reduction), decode_image(found, reduction)
        assert a.shape == b.shape and np.abs(a.astype(int) - b).mean() < 1.5, reduction
