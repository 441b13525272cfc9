from .multi_stage_heatmap_head import MultiStageHeatmapHead
from .stacked_hourglass import StackedHourglass

__all__ = ['MultiStageHeatmapHead', 'StackedHourglass']
