from .multi_stage_heatmap_head import MultiStageHeatmapHead
from .reparameterize import reparameterize
from .stacked_hourglass import StackedHourglass

__all__ = ['MultiStageHeatmapHead', 'StackedHourglass', 'reparameterize']
