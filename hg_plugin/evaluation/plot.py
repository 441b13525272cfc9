"""Plot PCKh over the threshold."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write

from .pckh import MEAN_WEIGHTS, THRESHOLDS, pckh_metrics


def check_plot_file(path) -> str:
    """Return the image format of a file name. Raise an InputError if matplotlib cannot write it."""
    from matplotlib.backend_bases import FigureCanvasBase  # here, because training never draws

    extension = Path(path).suffix[1:].lower()
    if extension not in FigureCanvasBase.get_supported_filetypes():
        raise InputError(f'{path} does not end in the extension of an image that can be drawn; name it .png.')
    return extension


def plot_pckh(curves: Mapping[str, Mapping[str, np.ndarray]], path, *, weights: str) -> None:
    """Plot 'Mean' with one line for each name.

    Args:
        curves: Maps a name to its :func:`pckh_curves`. The legend has the name, its Mean at 0.5 and its AUC.
        path: An image whose extension matplotlib knows, such as ``.png`` or ``.pdf``.
        weights: How 'Mean' was averaged, for its title.

    Raises:
        InputError: The extension is unknown, or the file cannot be written.
    """
    from matplotlib.figure import Figure  # not pyplot, which asks for a display

    image_format = check_plot_file(path)
    figure = Figure(figsize=(9, 6), layout='constrained')
    axes = figure.subplots()
    for name, own in curves.items():
        metrics = pckh_metrics(own)
        axes.plot(THRESHOLDS, own['Mean'], label=f'{name}: {metrics["Mean"]:.2f}, AUC {metrics["AUC"]:.2f}')
    axes.set(title=MEAN_WEIGHTS[weights], xlabel='threshold (fraction of the head size)', ylabel='PCKh (%)')
    axes.set(xlim=(0, THRESHOLDS[-1]), ylim=(0, 100))
    axes.grid(alpha=0.3)
    axes.legend(title='Mean PCKh@0.5, AUC')
    with atomic_write(path) as file:
        figure.savefig(file, format=image_format, dpi=120)
