from . import hooks
from .ema import ForeachEMA
from .hooks import *  # noqa: F403
from .mlflow_backend import SafeMLflowVisBackend
from .muon import MuonWithAuxAdam
from .optim_wrapper import AutocastOptimWrapper, cpu_has_bfloat16

__all__ = [
    'AutocastOptimWrapper',
    'ForeachEMA',
    'MuonWithAuxAdam',
    'SafeMLflowVisBackend',
    'cpu_has_bfloat16',
    *hooks.__all__,
]
