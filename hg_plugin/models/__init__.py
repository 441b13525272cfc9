from .foreach_ema import ForeachEMA
from .hourglass_pose_estimator import HourglassPoseEstimator
from .multi_stage_heatmap_head import MultiStageHeatmapHead
from .preprocessor import HeatmapDataPreprocessor
from .reparameterize import reparameterize
from .stacked_hourglass import StackedHourglass

__all__ = ['ForeachEMA', 'HeatmapDataPreprocessor', 'HourglassPoseEstimator', 'MultiStageHeatmapHead', 'StackedHourglass', 'reparameterize']
