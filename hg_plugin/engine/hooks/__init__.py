from .collapse_warning_hook import CollapseWarningHook
from .divergence_hook import DivergenceHook
from .exact_resume_hook import ExactResumeHook
from .keep_memory_hook import KeepMemoryHook, keep_freed_memory
from .lazy_runtime_info_hook import LazyRuntimeInfoHook
from .prediction_grid_hook import PredictionGridHook
from .preemption_hook import PreemptionHook
from .reparameterize_hook import ReparameterizeHook
from .report_hook import ReportHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .stage_heatmap_hook import StageHeatmapHook
from .tf32_hook import TF32Hook
from .unreadable_images_hook import UnreadableImagesHook

__all__ = [
    'CollapseWarningHook',
    'DivergenceHook',
    'ExactResumeHook',
    'KeepMemoryHook',
    'LazyRuntimeInfoHook',
    'PredictionGridHook',
    'PreemptionHook',
    'ReparameterizeHook',
    'ReportHook',
    'SafeCheckpointHook',
    'StageHeatmapHook',
    'TF32Hook',
    'UnreadableImagesHook',
    'keep_freed_memory',
]
