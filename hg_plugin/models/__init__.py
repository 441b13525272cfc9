from .data_preprocessor import HeatmapDataPreprocessor
from .heatmap_losses import SpatialCrossEntropyLoss
from .heatmap_targets import draw_heatmaps
from .multi_stage_heatmap_head import MultiStageHeatmapHead, average_flipped, peak_pck
from .pose_estimator import HourglassPoseEstimator
from .reparameterize import reparameterize
from .stacked_hourglass import StackedHourglass

__all__ = [
    'HeatmapDataPreprocessor',
    'HourglassPoseEstimator',
    'MultiStageHeatmapHead',
    'SpatialCrossEntropyLoss',
    'StackedHourglass',
    'average_flipped',
    'draw_heatmaps',
    'peak_pck',
    'reparameterize',
]
