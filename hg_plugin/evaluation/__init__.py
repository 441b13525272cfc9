"""PCKh: the computation, the MMEngine metrics, prediction files and the plot."""

from hg_plugin.mpii_format import load_ground_truth, load_predictions, save_predictions

from .mpii_pckh import MPIIPCKh
from .mpii_submission import MPIISubmission
from .pckh import METRIC_NAMES, THRESHOLDS, joint_groups, pckh, pckh_curves, pckh_metrics, pckh_table
from .plot import plot_pckh

__all__ = [
    'METRIC_NAMES',
    'MPIIPCKh',
    'MPIISubmission',
    'THRESHOLDS',
    'joint_groups',
    'load_ground_truth',
    'load_predictions',
    'pckh',
    'pckh_curves',
    'pckh_metrics',
    'pckh_table',
    'plot_pckh',
    'save_predictions',
]
