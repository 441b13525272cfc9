from .collapse_warning_hook import CollapseWarningHook
from .prediction_grid_hook import PredictionGridHook
from .reparameterize_hook import ReparameterizeHook

__all__ = ['CollapseWarningHook', 'PredictionGridHook', 'ReparameterizeHook']
