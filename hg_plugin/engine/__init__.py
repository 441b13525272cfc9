from . import hooks
from .ema import ForeachEMA
from .optim_wrapper import AutocastOptimWrapper

__all__ = ['AutocastOptimWrapper', 'ForeachEMA', 'hooks']
