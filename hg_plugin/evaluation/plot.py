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
    """Plot 'Mean' in a large panel and every joint group in a small one, with one line for each name.

    Args:
        curves: Maps a name to its :func:`pckh_curves`. The legend has the name, its Mean at 0.5 and its AUC.
        path: An image whose extension matplotlib knows, such as ``.png`` or ``.pdf``.
        weights: How 'Mean' was averaged, for its title.

    Raises:
        InputError: The extension is unknown, or the file cannot be written.
    """
    from matplotlib.figure import Figure  # not pyplot, which asks for a display

    image_format = check_plot_file(path)
    small = [column for column in next(iter(curves.values())) if column != 'Mean']
    half = (len(small) + 1) // 2
    mosaic = [
        ['Mean', 'Mean', *small[:half]],
        ['Mean', 'Mean', *small[half:], *['.'] * (2 * half - len(small))],
    ]
    figure = Figure(figsize=(6 + 2 * half, 6), layout='constrained')
    panels = figure.subplot_mosaic(mosaic, sharex=True, sharey=True)
    for column, panel in panels.items():
        for name, own in curves.items():
            metrics = pckh_metrics(own)
            label = f'{name}: {metrics["Mean"]:.2f}, AUC {metrics["AUC"]:.2f}'
            panel.plot(THRESHOLDS, own[column], label=label)
        panel.set(title=column, xlim=(0, THRESHOLDS[-1]), ylim=(0, 100))
        panel.tick_params(labelbottom=True, labelleft=True)
        panel.grid(alpha=0.3)
    mean = panels['Mean']
    mean.set(title=MEAN_WEIGHTS[weights], xlabel='threshold (fraction of the head size)', ylabel='PCKh (%)')
    figure.legend(*mean.get_legend_handles_labels(), loc='outside lower center', title='Mean PCKh@0.5, AUC')
    with atomic_write(path) as file:
        figure.savefig(file, format=image_format, dpi=120)
