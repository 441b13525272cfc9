from .lazy_runtime_info_hook import LazyRuntimeInfoHook
from .progress_hook import ProgressHook
from .report_hook import ReportHook
from .stage_heatmap_hook import StageHeatmapHook

__all__ = ['LazyRuntimeInfoHook', 'ProgressHook', 'ReportHook', 'StageHeatmapHook']
