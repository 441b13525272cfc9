"""What a user calls from Python."""
from .pose_estimator import PoseEstimator, Poses, PosesWithHeatmaps

__all__ = ['PoseEstimator', 'Poses', 'PosesWithHeatmaps']
