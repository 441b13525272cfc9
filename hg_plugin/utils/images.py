"""Decode images and videos to (H, W, 3) uint8 BGR arrays."""

import contextlib
import io
import os
import re
import stat
import tempfile
import threading
from collections.abc import Iterator
from os import PathLike
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from .errors import InputError

MAX_SIDE = 2**15 - 1  # pixels of an image that OpenCV can warp: it counts them in 16 bits
END_OF_JPEG = b'\xff\xd9'
JPEG = b'\xff\xd8'
EXIF_ORIENTATION = 0x0112
DECODE_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# the largest value of a Netpbm file, which OpenCV does not scale to
NETPBM_MAXIMUM = re.compile(rb'P[2356](?:\s+|#.*\n)+\d+(?:\s+|#.*\n)+\d+(?:\s+|#.*\n)+(\d+)')
# the marker that begins a JPEG's frame, and more than 8 bits a pixel
DEEP_JPEG = re.compile(rb'\xff[\xc0-\xc3]..([\x09-\x10])', re.DOTALL)
# what neither OpenCV nor Pillow decodes, by how it begins
FORMATS = {
    rb'....ftyp(he|mif1|msf1)': 'HEIC',
    rb'\xff\x0a|\0\0\0\x0cJXL ': 'JPEG XL',
    rb'v/1\x01': 'OpenEXR',
}
_stderr_lock = threading.Lock()


class ImageError(InputError):
    """One image or its boxes are wrong. Other inputs may be fine."""


def check_regular_file(path: str | PathLike) -> None:
    """Raise an :class:`ImageError` for what is no file, and for a pipe, which could block without end."""
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise ImageError(f'{path} cannot be read: {getattr(error, "strerror", None) or error}.') from error
    if not regular:
        raise ImageError(f'{path} is a folder, a pipe or a device; give a regular file.')


def read_regular_file(path: str | PathLike) -> bytes:
    """The content of a file.

    Raises:
        ImageError: If it cannot be read or is no regular file.
    """
    check_regular_file(path)
    try:
        with open(path, 'rb') as file:
            return file.read()
    except OSError as error:
        raise ImageError(f'{path} cannot be read: {error.strerror or error}.') from error


def read_image(path: str | PathLike, reduction: int = 1) -> np.ndarray:
    """Read an image file, see :func:`decode`.

    Raises:
        ImageError: If the file cannot be read, or is not such an image.
    """
    return decode(read_regular_file(path), path, reduction)


def decode(data: bytes, path: str | PathLike, reduction: int = 1) -> np.ndarray:
    """Decode an image as MMPose does: upright by its EXIF orientation, 8 bits, without transparency.

    16 bits become 8: 65535 becomes 255. Of an animation, the first frame is decoded.

    Args:
        data: The file's content.
        path: The file, for the message.
        reduction: Decode at 1 / ``reduction`` of the size, rounded up; 1, 2, 4 or 8. A JPEG decoder then
            skips most of its work; images of other formats are averaged. Defaults to 1.

    Returns:
        (H, W, 3) uint8, BGR.

    Raises:
        ImageError: If the data is not an image, is truncated, or has another depth than 8 or 16 bits.
    """
    jpeg = data.startswith(JPEG)
    reduced = jpeg and not (reduction > 1 and _shifts_reduced(data, reduction))
    image = _imdecode(data, DECODE_FLAGS[reduction if reduced else 1])
    # OpenCV refuses truncated files, but fills a JPEG with gray; a whole JPEG may have data after its end
    if image is None or (jpeg and END_OF_JPEG not in data[-1024:] and not _format_if_whole(data)):
        raise ImageError(f'{path} {_why_not_decoded(data)}')
    if not jpeg and (depth := _depth_that_is_lost(data)):
        raise ImageError(f'{path} has {depth}; save it with 8 or 16 bits a channel.')
    return image if reduced else reduce_image(image, reduction)


def _imdecode(data: bytes, flags: int) -> np.ndarray | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None


def _depth_that_is_lost(data: bytes) -> str | None:
    """The depth of pixels that OpenCV does not scale to 8 bits, but cuts off."""
    maximum = NETPBM_MAXIMUM.match(data)
    if maximum and int(maximum[1]) not in (255, 65535):
        return f'pixels from 0 to {int(maximum[1])}'
    if data.startswith((b'II', b'MM', b'#?', b'PF', b'Pf', b'v/1')):  # TIFF, HDR, PFM, OpenEXR
        pixels = _imdecode(data, cv2.IMREAD_UNCHANGED)
        if pixels is not None and pixels.dtype not in (np.uint8, np.uint16):
            return f'pixels of {pixels.dtype}'
    return None


def _why_not_decoded(data: bytes) -> str:
    """What is wrong with data that OpenCV does not decode: its depth, its format, or that it is damaged."""
    deep = DEEP_JPEG.search(data[:65536]) if data.startswith(JPEG) else None
    depth = f'{deep[1][0]} bits' if deep else _depth_that_is_lost(data)
    if depth:
        return f'has {depth}; save it with 8 bits a channel.'
    known = (name for start, name in FORMATS.items() if re.match(start, data[:1024], re.DOTALL))
    name = next(known, None) or _format_if_whole(data)
    if name:
        return f'has the format {name}, which OpenCV does not decode; save it as JPEG or PNG.'
    return 'is not an image or is truncated; get it again, or leave it out.'


def _shifts_reduced(data: bytes, reduction: int) -> bool:
    """Whether a JPEG's side is rounded up before the EXIF orientation is applied, which moves all pixels."""
    if b'Exif' not in data[:65536]:
        return False
    try:
        with Image.open(io.BytesIO(data)) as image:
            rotated = image.getexif().get(EXIF_ORIENTATION, 1) != 1
            return rotated and any(side % reduction for side in image.size)
    except Exception:  # damaged EXIF data raises anything
        return True


def _format_if_whole(data: bytes) -> str | None:
    """The format of an image that Pillow decodes to its end."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return image.format
    except Exception:  # damaged files raise anything: OSError, SyntaxError, ...
        return None


@contextlib.contextmanager
def captured_stderr() -> Iterator[BinaryIO]:
    """Gives a file that takes what C code prints to stderr in the ``with`` block."""
    with tempfile.TemporaryFile() as file, _stderr_lock:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield file
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def reduce_image(image: np.ndarray, reduction: int) -> np.ndarray:
    """Average squares of ``reduction`` pixels; at the right and bottom, edges are repeated as in a JPEG."""
    if reduction == 1:
        return image
    bottom, right = (-side % reduction for side in image.shape[:2])
    if bottom or right:
        image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    size = image.shape[1] // reduction, image.shape[0] // reduction
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def as_bgr(image: np.ndarray | Image.Image) -> np.ndarray:
    """Convert gray (H, W) or (H, W, 1), BGR or BGRA images of 8 or 16 bits to (H, W, 3) uint8 BGR.

    Transparency is dropped, and 16 bits become 8: 65535 becomes 255. A PIL image of any mode may be given.

    Raises:
        ImageError: If the image is something else.
    """
    if isinstance(image, Image.Image):
        deep = image.mode[0] in 'IF'  # 16 or 32 bits, which convert() cuts off
        image = np.asarray(image) if deep else np.asarray(image.convert('RGB'))[..., ::-1]
    if (
        not isinstance(image, np.ndarray)
        or image.dtype not in (np.uint8, np.uint16)
        or image.ndim < 2
        or image.shape[2:] not in ((), (1,), (3,), (4,))
        or not image.size
    ):
        shape = f' of {image.dtype} and shape {image.shape}' if isinstance(image, np.ndarray) else ''
        raise ImageError(
            f'The image is a {type(image).__name__}{shape}; give a path, or a uint8 or uint16 array of shape '
            '(height, width) or (height, width, channels) with 1, 3 (BGR) or 4 (BGRA) channels, or a PIL '
            'image.'
        )
    if image.dtype == np.uint16:
        image = np.rint(image / 257).astype(np.uint8)
    if image.shape[2:] in ((), (1,)):
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image[..., :3])


class Video:
    """The frames of a video file, a camera or a stream, one at a time: ``for frame in video``, once.

    Args:
        source: The file, the number of a camera as a text, such as '0', or the address of a stream.

    Attributes:
        fps (float): Frames per second; 30 if the source does not say.
        num_frames (int): As the source says; 0 if it does not.
        size (tuple): Width and height in pixels, rotated as the file says.
        is_live (bool): Whether it may go on without end, as a camera does.

    Raises:
        ImageError: If there is no video or, from the loop, it has fewer than nine tenths of ``num_frames``.
    """

    def __init__(self, source: str | PathLike):
        self.source = source
        is_camera = isinstance(source, str) and source.isdecimal() and not os.path.exists(source)
        is_stream = isinstance(source, str) and '://' in source
        if not (is_camera or is_stream):
            check_regular_file(source)
        self._capture = cv2.VideoCapture(int(source) if is_camera else os.fspath(source))
        readable, self._first = self._capture.read()
        if not readable:
            problem = (
                'cannot be read as a camera; is it connected, and does no other program use it?'
                if is_camera
                else 'is not a video or is truncated; get it again, or leave it out.'
            )
            raise ImageError(f'{source} {problem}')
        self.size = self._first.shape[1::-1]
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 30.0
        self.num_frames = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        self.is_live = is_camera or (is_stream and not self.num_frames)
        if is_camera:
            self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the newest frame, not those that were missed

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield (H, W, 3) uint8 BGR."""
        readable, frame, count = True, self._first, 0
        try:
            while readable:
                yield frame
                count += 1
                readable, frame = self._capture.read()
        finally:
            self._capture.release()
        # some formats know their number of frames only roughly
        if count < 0.9 * self.num_frames:
            raise ImageError(
                f'{self.source} breaks off after {count} of its {self.num_frames} frames; '
                'get it again, or leave it out.'
            )
