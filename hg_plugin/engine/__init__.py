from . import hooks, resume
from .ema import ForeachEMA
from .hooks import *  # noqa: F403
from .mlflow_backend import SafeMLflowVisBackend
from .muon import MuonWithAuxAdam
from .optim_wrapper import AutocastOptimWrapper, cpu_has_bfloat16
from .resume import *  # noqa: F403
from .test_loop import ReparameterizedTestLoop

__all__ = [
    'AutocastOptimWrapper',
    'ForeachEMA',
    'MuonWithAuxAdam',
    'ReparameterizedTestLoop',
    'SafeMLflowVisBackend',
    'cpu_has_bfloat16',
    *hooks.__all__,
    *resume.__all__,
]
