from .collapse_warning_hook import CollapseWarningHook
from .prediction_grid_hook import PredictionGridHook

__all__ = ['CollapseWarningHook', 'PredictionGridHook']
