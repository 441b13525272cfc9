"""Test a checkpoint with MMEngine's stock runner. The options are MMPose's."""

from .arguments import add_config, add_runner_options, runner_options


def add_arguments(parser):
    add_config(parser)
    parser.add_argument('checkpoint', metavar='CHECKPOINT', help='checkpoint file')
    parser.add_argument('--dump', metavar='FILE.pkl', help='write all predictions to this file')
    parser.add_argument('--out', metavar='FILE', help='write the metrics to this .json, .yml or .pkl file')
    add_runner_options(parser)


def run(args):
    from mmengine import dump
    from mmengine.dist import is_main_process

    from hg_plugin.training.runner import test
    from hg_plugin.utils.errors import InputError
    from hg_plugin.utils.files import atomic_write

    options = runner_options(args)
    out = options.pop('out')
    if out and not out.endswith(('.json', '.yml', '.yaml', '.pkl')):
        raise InputError(f'--out {out}: the file must end in .json, .yml or .pkl.')
    metrics = test(**options)
    if out and is_main_process():
        content = dump(metrics, file_format=out.rpartition('.')[2])
        with atomic_write(out) as file:
            file.write(content if isinstance(content, bytes) else content.encode())
