"""What a user calls from Python."""

from hg_plugin.inference.pose_estimator import PoseEstimator, Poses, PosesWithHeatmaps

__all__ = ['PoseEstimator', 'Poses', 'PosesWithHeatmaps']
