"""Stacked hourglass networks for MMPose. Importing this package registers all its modules with MMEngine."""

__version__ = '0.1.0'

from .compat.mmpose import check_requirements, draw_circles_with_new_numpy, import_mmpose

check_requirements()
import_mmpose()
draw_circles_with_new_numpy()

from .compat.mmengine import find_plugin_configs, guard_resume, look_for_mmcv_operators  # noqa: E402
from .compat.torch import allow_mmengine_checkpoints  # noqa: E402

look_for_mmcv_operators()
find_plugin_configs()
allow_mmengine_checkpoints()

from . import datasets, engine, evaluation, models  # noqa: E402, F401
from .engine.resume import guard  # noqa: E402

guard_resume(guard.load_or_resume, guard.resume)
