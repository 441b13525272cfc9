"""Stacked hourglass networks for MMPose. Importing this package registers all its modules with MMEngine."""

__version__ = '0.1.0'

from .compat.mmpose import check_requirements, draw_circles_with_new_numpy, import_mmpose, tell_first_pixels

check_requirements()
import_mmpose()
draw_circles_with_new_numpy()
tell_first_pixels()

from .compat.mmengine import find_plugin_configs  # noqa: E402
from .compat.torch import allow_mmengine_checkpoints  # noqa: E402

find_plugin_configs()
allow_mmengine_checkpoints()

from .utils.resume import guard_resume  # noqa: E402
from .utils.whole_files import write_whole_files  # noqa: E402

guard_resume()
write_whole_files()

from . import datasets, engine, evaluation, models  # noqa: E402, F401
