#!/usr/bin/env python
"""Test a checkpoint: python tools/test.py CONFIG CHECKPOINT [options], with MMPose's options."""

import os
from argparse import ArgumentParser

from mmengine import dump
from mmengine.config import DictAction
from mmengine.dist import is_main_process

from hg_plugin.apis import test
from hg_plugin.utils.errors import InputError, command
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.screen import need_screen


@command
def main():
    parser = ArgumentParser(description="Test a pose model with MMEngine's stock runner.")
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--work-dir', help='folder of logs (default: work_dirs/CONFIG)')
    parser.add_argument('--data-root', help="folder of the dataset, instead of the config's")
    parser.add_argument('--dump', help='write all predictions to this .pkl file')
    parser.add_argument('--out', help='write the metrics to this .json, .yml or .pkl file')
    parser.add_argument('--show-dir', help="folder of drawn predictions, in the run's folder")
    parser.add_argument('--interval', type=int, default=1, help='draw every so many samples (default: 1)')
    parser.add_argument('--show', action='store_true', help='show drawn predictions in a window')
    parser.add_argument('--wait-time', type=float, default=1, help='seconds a window stays (default: 1)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, default={}, help='settings to override: KEY.KEY=VALUE'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='of torch.distributed.launch'
    )
    args = vars(parser.parse_args())
    os.environ.setdefault('LOCAL_RANK', str(args.pop('local_rank')))
    drawing = {key: args.pop(key) for key in ('interval', 'show', 'wait_time')}
    if drawing['show']:
        need_screen('draw to files with --show-dir DIR')
    if args['show_dir'] or drawing['show']:
        drawing |= dict(type='PoseVisualizationHook', enable=True)
        args['cfg_options'] = {'default_hooks.visualization': drawing, **args['cfg_options']}
    out = args.pop('out')
    if out and not out.endswith(('.json', '.yml', '.yaml', '.pkl')):
        raise InputError(f'--out {out}: the file must end in .json, .yml or .pkl.')
    metrics = test(**args)
    if out and is_main_process():
        content = dump(metrics, file_format=out.rpartition('.')[2])
        with atomic_write(out) as file:
            file.write(content if isinstance(content, bytes) else content.encode())


if __name__ == '__main__':
    main()
