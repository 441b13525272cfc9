"""Windows on a screen."""

import os
import sys

import cv2
import numpy as np

from hg_plugin.utils.errors import InputError


def need_screen(advice: str) -> None:
    """Raise an :class:`InputError` with ``advice`` where there is no screen.

    A call of Qt would end the process.
    """
    screen = os.environ.get('DISPLAY') or os.environ.get('WAYLAND_DISPLAY')
    if sys.platform == 'linux' and not screen:
        raise InputError(f'--show needs a screen, which is not here; {advice}.')


class Window:
    """A window that shows images until a key is pressed, or until Q or Esc for a video.

    Raises:
        InputError: There is no screen, or OpenCV comes without windows.
    """

    def __init__(self, title: str):
        self.title = title
        need_screen('leave it out, and look at the files')
        try:
            cv2.namedWindow(title, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise InputError(
                '--show needs an OpenCV with windows; install opencv-python instead of '
                'opencv-python-headless, or leave --show out and look at the files.'
            ) from error

    def show(self, image: np.ndarray, milliseconds: int = 0) -> bool:
        """Show an image, and wait so long for a key; 0 waits for ever. Return False for Q and Esc."""
        cv2.imshow(self.title, image)
        return cv2.waitKey(milliseconds) & 0xFF not in (ord('q'), ord('Q'), 27)
