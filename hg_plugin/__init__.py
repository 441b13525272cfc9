"""Stacked hourglass networks for MMPose. Importing this package registers all its modules with MMEngine."""

__version__ = '0.1.0'

from .environment import (
    allow_mmengine_checkpoints,
    check_requirements,
    draw_circles_with_new_numpy,
    find_plugin_configs,
    import_mmpose,
)

check_requirements()
import_mmpose()
draw_circles_with_new_numpy()
find_plugin_configs()
allow_mmengine_checkpoints()

from . import datasets, engine, evaluation, models  # noqa: E402
