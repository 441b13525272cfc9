"""Draw what a training sees.

This writes a contact sheet of augmented samples with their keypoints and target heatmaps, and prints how many
joints fall outside of the network's input.
"""

from argparse import ArgumentError
from pathlib import Path

from .arguments import add_cfg_options, add_config


def add_arguments(parser):
    add = parser.add_argument
    add_config(parser)
    add('--split', choices=['train', 'val', 'test'], default='train', help='of the dataset')
    add('--num', type=int, default=24, metavar='N', help='how many samples')
    add('--seed', type=int, help="the training's seed (default: the config's, or 0)")
    add('--out-dir', metavar='DIR', help='default: work_dirs/CONFIG/browse')
    add_cfg_options(parser)


def run(args):
    from hg_plugin.training.browse import browse
    from hg_plugin.utils.config import read_config

    if args.num < 1:
        raise ArgumentError(None, '--num must be at least 1')
    cfg = read_config(args.config, data_root=args.data_root, cfg_options=args.cfg_options)
    out = f'{args.out_dir or f"work_dirs/{Path(args.config).stem}/browse"}/{args.split}.png'
    joints, num = browse(cfg, out, split=args.split, num=args.num, seed=args.seed)
    annotated, outside, untrained = map(sum, zip(*joints.values()))
    most = sorted((-count[1], name) for name, count in joints.items() if count[1])
    names = ', '.join(f'{name} {-count}' for count, name in most)
    print(
        f'{outside} of {annotated} annotated joints in {num} samples fall outside of the input'
        f'{f" ({names})" if names else ""}; {untrained} have no target.\n{out}'
    )
