from .hourglass_pose_estimator import HourglassPoseEstimator
from .multi_stage_heatmap_head import MultiStageHeatmapHead
from .stacked_hourglass import StackedHourglass

__all__ = ['HourglassPoseEstimator', 'MultiStageHeatmapHead', 'StackedHourglass']
