from .data_preprocessor import HeatmapDataPreprocessor
from .multi_stage_heatmap_head import MultiStageHeatmapHead
from .pose_estimator import HourglassPoseEstimator
from .reparameterize import reparameterize
from .stacked_hourglass import StackedHourglass

__all__ = [
    'HeatmapDataPreprocessor',
    'HourglassPoseEstimator',
    'MultiStageHeatmapHead',
    'StackedHourglass',
    'reparameterize',
]
