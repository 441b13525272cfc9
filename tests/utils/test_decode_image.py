import io

import cv2
import numpy as np
import pytest
from PIL import Image

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.images import ImageError, as_bgr, decode, read_image


@pytest.mark.parametrize('reduction', [2, 4, 8])
def test_it_decodes_as_opencv_does(real_data, reduction):
    path = sorted(real_data('mpii_test_pictures').glob('*.jpg'))[0]
    assert np.array_equal(decode(path.read_bytes(), 'a.jpg'), cv2.imread(str(path)))
    flag = getattr(cv2, f'IMREAD_REDUCED_COLOR_{reduction}')
    reduced = cv2.imread(str(path), flag)
    assert np.array_equal(read_image(path, reduction), reduced)
    # other formats are averaged as a JPEG is
    png = cv2.imencode('.png', cv2.imread(str(path)))[1].tobytes()
    assert np.abs(decode(png, 'a.jpg', reduction).astype(int) - reduced).mean() < 1.5


def test_truncated_data_is_refused(real_data, tmp_path):
    data = sorted(real_data('mpii_test_pictures').glob('*.jpg'))[0].read_bytes()
    whole = decode(data, 'a.jpg', 2)
    assert np.array_equal(decode(data + b'x' * 2000, 'a.jpg', 2), whole)  # cameras append what they like
    png = cv2.imencode('.png', whole)[1].tobytes()
    for content in (data[: len(data) // 2], data[:-1000], data[:100], png[: len(png) // 2], b'', b'no image'):
        (tmp_path / 'a.jpg').write_bytes(content)
        with pytest.raises(InputError, match='a.jpg .*truncated'):
            read_image(tmp_path / 'a.jpg')
    with pytest.raises(InputError, match='No such file'):
        read_image(tmp_path / 'b.jpg')


# the stored image, which the orientations 2 to 8 of EXIF data turn upright
STORED = 'FLIP_LEFT_RIGHT ROTATE_180 FLIP_TOP_BOTTOM TRANSPOSE ROTATE_90 TRANSVERSE ROTATE_270'.split()


@pytest.mark.parametrize('size', [(1607, 1203), (1600, 1200)], ids=['odd', 'multiple of 8'])
@pytest.mark.parametrize('orientation', range(2, 9))
def test_a_rotated_image_is_upright_and_not_shifted(size, orientation):
    noise = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    upright = Image.fromarray(cv2.resize(noise, size, interpolation=cv2.INTER_CUBIC))
    rotated = upright.transpose(Image.Transpose[STORED[orientation - 2]])
    exif = Image.Exif()
    exif[0x0112] = orientation
    expected, found = saved(upright, quality=95), saved(rotated, quality=95, exif=exif)
    assert decode(found, 'a.jpg').shape == (size[1], size[0], 3)
    for reduction in (1, 2, 4, 8):
        a, b = decode(expected, 'a.jpg', reduction), decode(found, 'a.jpg', reduction)
        assert a.shape == b.shape and np.abs(a.astype(int) - b).mean() < 1.5, reduction


RAMP = np.tile(np.linspace(0, 1, 256), (64, 1))


def encoded(array, suffix):
    return cv2.imencode(suffix, array)[1].tobytes()


def saved(image, kind='jpeg', **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize('suffix', ['.png', '.tiff', '.jp2', '.pgm'])
def test_16_bits_become_8(suffix):
    image = decode(encoded((RAMP * 65535).astype(np.uint16), suffix), 'a')
    assert image.dtype == np.uint8 and np.abs(image[0, :, 0].astype(int) - range(256)).max() <= 1


@pytest.mark.parametrize(
    'data, name',
    [
        (encoded(RAMP.astype(np.float32), '.tiff'), 'float32'),
        (encoded(np.dstack([RAMP] * 3).astype(np.float32), '.hdr'), 'float32'),
        (b'P5\n# 10 bits\n256 64\n1023\n' + (RAMP * 1023).astype('>u2').tobytes(), '0 to 1023'),
        (b'\xff\xd8\xff\xc1\x00\x0b\x0c\x00\x08\x01\x00\x01\x01\x11\x00\xff\xd9', '12 bits'),
        (b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(500), 'HEIC'),
        (b'\xff\x0a' + bytes(500), 'JPEG XL'),
        (saved(Image.new('RGB', (9, 9)), 'TGA'), 'TGA'),
    ],
)
def test_other_depths_and_formats_are_refused_with_their_name(data, name):
    with pytest.raises(ImageError, match=name):
        decode(data, 'a.x')


@pytest.mark.parametrize(
    'image, kind',
    [
        (None, 'a NoneType'),
        (np.zeros((4, 4, 3)), r'float64 and shape \(4, 4, 3\)'),
        (np.zeros((0, 4, 3), np.uint8), r'uint8 and shape \(0, 4, 3\)'),
        (Image.new('F', (9, 9)), 'float32'),
    ],
)
def test_what_is_no_image(image, kind):
    with pytest.raises(ImageError, match=kind):
        as_bgr(image)
