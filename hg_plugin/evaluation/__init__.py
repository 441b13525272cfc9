"""PCKh as the stacked hourglass paper reports it: the arithmetic, the metric, prediction files and the plot."""

from hg_plugin.mpii_format import load_ground_truth, load_predictions, save_predictions

from .mpii_pckh import MPIIPCKh
from .mpii_submission import MPIISubmission
from .pckh import FIGURES, THRESHOLDS, pckh, pckh_curves, pckh_figures, pckh_table
from .plot import check_plot_file, plot_pckh

__all__ = [
    'FIGURES',
    'MPIIPCKh',
    'MPIISubmission',
    'THRESHOLDS',
    'check_plot_file',
    'load_ground_truth',
    'load_predictions',
    'pckh',
    'pckh_curves',
    'pckh_figures',
    'pckh_table',
    'plot_pckh',
    'save_predictions',
]
