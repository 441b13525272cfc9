"""What a user calls from Python."""

from hg_plugin.convert.published import convert_checkpoint
from hg_plugin.deploy.backends import PoseEstimator
from hg_plugin.deploy.export import export
from hg_plugin.inference.files import infer_files
from hg_plugin.inference.many import infer_many
from hg_plugin.report.page import write_report
from hg_plugin.training.average import average_checkpoints
from hg_plugin.training.runner import test, train
from hg_plugin.visualization import draw_poses, draw_skeleton

__all__ = [
    'PoseEstimator',
    'average_checkpoints',
    'convert_checkpoint',
    'draw_poses',
    'draw_skeleton',
    'export',
    'infer_files',
    'infer_many',
    'test',
    'train',
    'write_report',
]
