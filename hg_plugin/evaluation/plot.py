"""PCKh against the threshold, drawn."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write

from .pckh import MEAN_WEIGHTS, THRESHOLDS, pckh_figures


def check_plot_file(path) -> None:
    """Raises an InputError unless the name ends in the extension of a picture that matplotlib can write."""
    from matplotlib.backend_bases import FigureCanvasBase  # here, because training never draws

    if _format(path) not in FigureCanvasBase.get_supported_filetypes():
        raise InputError(
            f'{path} does not end in the extension of a picture that can be drawn; name it .png.'
        )


def _format(path) -> str:
    return Path(path).suffix[1:].lower()


def plot_pckh(curves: Mapping[str, Mapping[str, np.ndarray]], path, *, weights: str) -> None:
    """Draws PCKh over the thresholds 0 .. 0.5: 'Mean' large, each joint group small, one line for each name.

    Args:
        curves: Maps a name to its :func:`pckh_curves`; the legend has the name, its Mean at 0.5 and its AUC.
        path: A picture whose extension matplotlib knows, such as ``.png`` or ``.pdf``.
        weights: How 'Mean' was averaged, for its title.

    Raises:
        InputError: The extension is unknown, or the file cannot be written.
    """
    from matplotlib.figure import Figure  # not pyplot, which asks for a display

    check_plot_file(path)
    figure = Figure(figsize=(14, 6), layout='constrained')
    panels = figure.subplot_mosaic(
        [
            ['Mean', 'Mean', 'Head', 'Shoulder', 'Elbow', 'Wrist'],
            ['Mean', 'Mean', 'Hip', 'Knee', 'Ankle', '.'],
        ],
        sharex=True,
        sharey=True,
    )
    for column, panel in panels.items():
        for name, own in curves.items():
            figures = pckh_figures(own)
            panel.plot(
                THRESHOLDS, own[column], label=f'{name}: {figures["Mean"]:.2f}, AUC {figures["AUC"]:.2f}'
            )
        panel.set(title=column, xlim=(0, THRESHOLDS[-1]), ylim=(0, 100))
        panel.tick_params(labelbottom=True, labelleft=True)
        panel.grid(alpha=0.3)
    panels['Mean'].set(
        title=MEAN_WEIGHTS[weights], xlabel='threshold (fraction of the head size)', ylabel='PCKh (%)'
    )
    figure.legend(
        *panels['Mean'].get_legend_handles_labels(), loc='outside lower center', title='Mean PCKh@0.5, AUC'
    )
    with atomic_write(path) as file:
        figure.savefig(file, format=_format(path), dpi=120)
