"""Write videos that browsers play, and end a live one."""

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import partial_name, writing
from hg_plugin.utils.images import ImageError, Video, captured_stderr

# Suffix and codec, or the program that encodes H.264; the first that can be written is taken. Browsers play
# H.264, for which OpenCV may find no encoder on Linux, and VP8, which takes twice as long as the last one,
# which they do not play. VP9 takes ten times as long.
FORMATS = (('.mp4', 'avc1'), ('.mp4', 'ffmpeg'), ('.webm', 'VP80'), ('.mp4', 'mp4v'))


class _FFmpegWriter:
    """The part of ``cv2.VideoWriter`` that is used here, by the program ffmpeg."""

    def __init__(self, path: Path, fps: float, size: tuple[int, int]):
        command = f'ffmpeg -loglevel quiet -y -f rawvideo -pix_fmt bgr24 -s {size[0]}x{size[1]} -r {fps} -i -'
        # H.264 of browsers has even sides
        command += ' -c:v libx264 -pix_fmt yuv420p -movflags +faststart -vf pad=ceil(iw/2)*2:ceil(ih/2)*2'
        # in a session of its own, so that Ctrl-C does not end it before the last frames
        self.process = subprocess.Popen(
            [*command.split(), path], stdin=subprocess.PIPE, start_new_session=True
        )

    def isOpened(self) -> bool:
        return True

    def write(self, frame: np.ndarray) -> None:
        with contextlib.suppress(BrokenPipeError):  # frames that are missing are counted in the end
            self.process.stdin.write(frame.tobytes())

    def release(self) -> None:
        self.process.communicate()


@contextlib.contextmanager
def open_video(stem: Path, like: Video) -> Iterator[Callable[[np.ndarray], None]]:
    """Give a function that writes frames of the size of ``like`` to a video, which replaces that of this name
    when the block ends without an error.

    Its name is ``stem`` with the suffix of its format.

    Raises:
        ImageError: OpenCV cannot write a video of this size.
        InputError: The file cannot be written.
    """
    suffix, codec = video_format(like.size)
    path = stem.with_name(f'{stem.name}{suffix}')
    partial = partial_name(path).with_suffix(suffix)  # OpenCV needs it
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    writer = _writer(partial, codec, like.fps, like.size)
    if not writer.isOpened():
        raise ImageError(f'{path} cannot be written: OpenCV cannot make this video; draw no skeletons.')
    count = 0

    def write(frame: np.ndarray) -> None:
        nonlocal count
        writer.write(frame)
        count += 1

    try:
        yield write
        writer.release()
        if _count_frames(partial) < count:
            raise InputError(f'{path} cannot be written completely; make room on the disk.')
        with writing(path):
            os.replace(partial, path)
    finally:
        writer.release()
        partial.unlink(missing_ok=True)  # it is gone after success


def _count_frames(path: Path) -> int:
    """The frames that can be read back: OpenCV reports no error of a writer, and a part of a WebM is one."""
    with captured_stderr():
        capture, count = cv2.VideoCapture(str(path)), 0
        while capture.grab():
            count += 1
    return count


@functools.cache
def video_format(size: tuple[int, int]) -> tuple[str, str]:
    """The suffix and codec for frames of this width and height that can be written here, see ``FORMATS``."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix, codec in FORMATS[:-1]:
            if codec == 'ffmpeg' and not shutil.which('ffmpeg'):
                continue
            path = Path(folder, f'{codec}{suffix}')
            writer = _writer(path, codec, 30, size)
            if writer.isOpened():
                writer.write(np.zeros((*size[::-1], 3), np.uint8))
                writer.release()
                if _count_frames(path):
                    return suffix, codec
    return FORMATS[-1]


def _writer(path: Path, codec: str, fps: float, size: tuple[int, int]) -> cv2.VideoWriter | _FFmpegWriter:
    if codec == 'ffmpeg':
        return _FFmpegWriter(path, fps, size)
    # for VP8, whose defaults take three times as long; other encoders have no such options
    os.environ.setdefault('OPENCV_FFMPEG_WRITER_OPTIONS', 'deadline;realtime|cpu-used;8')
    with captured_stderr():  # of which encoders FFmpeg does not find
        return cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)


@contextlib.contextmanager
def ctrl_c_is_noted() -> Iterator[list]:
    """In the block, the first Ctrl-C adds to the list, and raises no KeyboardInterrupt amid a frame."""
    noted: list[bool] = []
    if threading.current_thread() is not threading.main_thread():  # which cannot handle signals
        yield noted
        return

    def note(*_):
        noted.append(True)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield noted
    finally:
        signal.signal(signal.SIGINT, before)
