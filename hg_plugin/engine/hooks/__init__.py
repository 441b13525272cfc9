from .lazy_runtime_info_hook import LazyRuntimeInfoHook
from .report_hook import ReportHook
from .stage_heatmap_hook import StageHeatmapHook

__all__ = ['LazyRuntimeInfoHook', 'ReportHook', 'StageHeatmapHook']
