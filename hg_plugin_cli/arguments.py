"""Arguments that several commands share."""

import argparse
import os


class Settings(argparse.Action):
    """MMEngine's ``DictAction``, imported when it is used."""

    def __call__(self, parser, namespace, values, option_string=None):
        from mmengine.config import DictAction

        DictAction(self.option_strings, self.dest, '+')(parser, namespace, values, option_string)


class HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """Tells the defaults of arguments that have one."""

    def _get_help_string(self, action):
        none = isinstance(action.default, (bool, dict, type(None)))
        return action.help if none else super()._get_help_string(action)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    text = 'settings to override, such as train_cfg.max_epochs=10'
    options = dict(nargs='+', action=Settings, default={}, metavar='KEY=VALUE')
    parser.add_argument('--cfg-options', **options, help=text)


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', metavar='CONFIG', help='config file, or hg_plugin::NAME of the package')
    parser.add_argument('--data-root', metavar='DIR', help="folder of the dataset, instead of the config's")


def add_workers(parser: argparse.ArgumentParser) -> None:
    workers = dict(dest='num_workers', type=int, default=os.cpu_count() or 1, metavar='W')
    parser.add_argument('--workers', **workers, help='processes')


def add_runner_options(parser: argparse.ArgumentParser) -> None:
    """What training and testing have in common, with MMPose's names."""
    add = parser.add_argument
    add('--work-dir', metavar='DIR', help='folder of logs and checkpoints (default: work_dirs/CONFIG)')
    add('--show-dir', metavar='DIR', help="folder of drawn predictions, in the run's folder")
    add('--interval', type=int, default=1, help='draw every so many samples')
    add('--show', action='store_true', help='show drawn predictions in a window')
    add('--wait-time', type=float, default=1, help='seconds a window stays')
    add('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    add('--local_rank', '--local-rank', type=int, default=0, help='of torch.distributed.launch')
    add_cfg_options(parser)


def runner_options(args: argparse.Namespace) -> dict:
    """The arguments of :func:`hg_plugin.apis.train` and ``test``."""
    from hg_plugin.inference.screen import need_screen

    options = vars(args)
    os.environ.setdefault('LOCAL_RANK', str(options.pop('local_rank')))
    drawing = {key: options.pop(key) for key in ('interval', 'show', 'wait_time')}
    if drawing['show']:
        need_screen('draw to files with --show-dir DIR')
    if options['show_dir'] or drawing['show']:
        drawing |= dict(type='PoseVisualizationHook', enable=True)
        options['cfg_options'] = {'default_hooks.visualization': drawing, **options['cfg_options']}
    return options
