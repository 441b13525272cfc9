from .collapse_warning_hook import CollapseWarningHook
from .keep_memory_hook import KeepMemoryHook, keep_freed_memory
from .lazy_runtime_info_hook import LazyRuntimeInfoHook
from .prediction_grid_hook import PredictionGridHook
from .reparameterize_hook import ReparameterizeHook
from .safe_checkpoint_hook import SafeCheckpointHook
from .tf32_hook import TF32Hook

__all__ = [
    'CollapseWarningHook',
    'KeepMemoryHook',
    'LazyRuntimeInfoHook',
    'PredictionGridHook',
    'ReparameterizeHook',
    'SafeCheckpointHook',
    'TF32Hook',
    'keep_freed_memory',
]
