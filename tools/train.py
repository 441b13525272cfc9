#!/usr/bin/env python
"""Train a model: python tools/train.py CONFIG [options], with MMPose's options."""

import os
from argparse import ArgumentParser

from mmengine.config import DictAction

from hg_plugin.apis import train
from hg_plugin.utils.errors import command


@command
def main():
    parser = ArgumentParser(description="Train a pose model with MMEngine's stock runner.")
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints (default: work_dirs/CONFIG)')
    parser.add_argument('--data-root', help="folder of the dataset, instead of the config's")
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        default=False,
        metavar='CHECKPOINT',
        help='continue from this checkpoint (default: the latest in the work directory)',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument(
        '--no-validate', dest='validate', action='store_false', help='do not validate during the training'
    )
    parser.add_argument('--auto-scale-lr', action='store_true', help='scale the learning rate by batch size')
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
    args['resume'] = args['resume'] == 'auto' or args['resume']
    drawing = {key: args.pop(key) for key in ('interval', 'show', 'wait_time')}
    if args['show_dir'] or drawing['show']:
        drawing |= dict(type='PoseVisualizationHook', enable=True)
        args['cfg_options'] = {'default_hooks.visualization': drawing, **args['cfg_options']}
    train(**args)


if __name__ == '__main__':
    main()
