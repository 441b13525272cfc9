import io

import cv2
import numpy as np
import pytest
from PIL import Image

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.images import ImageError, as_bgr, decode, read_image, reduce_image


def test_it_decodes_as_opencv_does(real_data):
    path = sorted(real_data('mpii_test_pictures').glob('*.jpg'))[0]
    data = path.read_bytes()
    assert np.array_equal(decode(data, 'a.jpg'), cv2.imread(str(path)))
    for reduction in (2, 4, 8):
        flag = getattr(cv2, f'IMREAD_REDUCED_COLOR_{reduction}')
        assert np.array_equal(read_image(path, reduction), cv2.imread(str(path), flag))


def test_truncated_data_is_refused(real_data, tmp_path):
    data = sorted((real_data('mpii_test_pictures')).glob('*.jpg'))[0].read_bytes()
    whole = decode(data, 'a.jpg', 2)
    assert np.array_equal(decode(data + b'x' * 2000, 'a.jpg', 2), whole)  # cameras append what they like
    png = cv2.imencode('.png', whole)[1].tobytes()
    for content in (data[: len(data) // 2], data[:-1000], data[:100], png[: len(png) // 2], b'', b'no image'):
        (tmp_path / 'a.jpg').write_bytes(content)
        with pytest.raises(InputError, match='a.jpg is not an image or is truncated'):
            read_image(tmp_path / 'a.jpg')
    with pytest.raises(InputError, match='b.jpg cannot be read: No such file'):
        read_image(tmp_path / 'b.jpg')


@pytest.mark.parametrize('reduction', [2, 4, 8])
def test_other_formats_are_averaged_as_a_jpeg_is(real_data, reduction):
    data = sorted((real_data('mpii_sample') / 'images').iterdir())[0].read_bytes()
    png = cv2.imencode('.png', decode(data, 'a.jpg'))[1].tobytes()
    assert np.abs(decode(png, 'a.jpg', reduction).astype(int) - decode(data, 'a.jpg', reduction)).mean() < 1.5


@pytest.mark.parametrize('width, height', [(1, 1), (13, 22), (32, 40)])
def test_any_size_shrinks_to_a_jpegs(width, height):
    image = np.full((height, width, 3), 90, np.uint8)
    data = cv2.imencode('.jpg', image)[1].tobytes()
    for reduction in (2, 4, 8):
        reduced = reduce_image(image, reduction)
        assert reduced.shape == decode(data, 'a.jpg', reduction).shape and (reduced == 90).all()


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
    assert decode(found, 'a.jpg').shape == (size[1], size[0], 3)
    for reduction in (1, 2, 4, 8):
        a, b = decode(expected, 'a.jpg', reduction), decode(found, 'a.jpg', reduction)
        assert a.shape == b.shape and np.abs(a.astype(int) - b).mean() < 1.5, reduction


RAMP = np.tile(np.linspace(0, 1, 256), (64, 1))


def encoded(array, suffix):
    return cv2.imencode(suffix, array)[1].tobytes()


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize('suffix', ['.png', '.tiff', '.jp2', '.pgm'])
def test_16_bits_become_8(suffix):
    image = decode(encoded((RAMP * 65535).astype(np.uint16), suffix), 'a')
    assert image.dtype == np.uint8 and np.abs(image[0, :, 0].astype(int) - range(256)).max() <= 1


@pytest.mark.parametrize(
    'data, depth',
    [
        (encoded(RAMP.astype(np.float32), '.tiff'), 'float32'),
        (encoded(np.dstack([RAMP] * 3).astype(np.float32), '.hdr'), 'float32'),
        (encoded(RAMP.astype(np.float32), '.pfm'), 'float32'),
        (encoded((RAMP * 32767).astype(np.int16), '.tiff'), 'int16'),
        (encoded((RAMP * 1e9).astype(np.int32), '.tiff'), 'int32'),
        (b'P5\n# 10 bits\n256 64\n1023\n' + (RAMP * 1023).astype('>u2').tobytes(), '0 to 1023'),
        (b'\xff\xd8\xff\xc1\x00\x0b\x0c\x00\x08\x01\x00\x01\x01\x11\x00\xff\xd9', '12 bits'),
    ],
)
def test_other_depths_are_refused_with_their_name(data, depth):
    with pytest.raises(ImageError, match=f'a.x has .*{depth}; save it with 8'):
        decode(data, 'a.x')


@pytest.mark.parametrize(
    'data, name',
    [
        (b'\0\0\0\x18ftypheic\0\0\0\0mif1heic' + bytes(500), 'HEIC'),
        (b'\xff\x0a' + bytes(500), 'JPEG XL'),
        (saved(Image.new('RGB', (9, 9)), 'TGA'), 'TGA'),
        (saved(Image.new('RGB', (9, 9)), 'PCX'), 'PCX'),
    ],
)
def test_formats_that_opencv_does_not_know_are_named(data, name):
    with pytest.raises(ImageError, match=f'has the format {name}, which OpenCV does not decode'):
        decode(data, 'a')


@pytest.mark.parametrize('mode', ['I', 'F'])
def test_deep_pil_images_are_refused_and_not_cut_off(mode):
    with pytest.raises(ImageError, match='of (int|float)32'):
        as_bgr(Image.fromarray((RAMP * 1000).astype(np.uint8)).convert(mode))
