"""What a user calls from Python."""

from hg_plugin.inference.files import infer_files
from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.training.runner import test, train

__all__ = ['PoseEstimator', 'infer_files', 'test', 'train']
