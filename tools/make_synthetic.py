#!/usr/bin/env python
"""Makes a data set of synthetic persons in the MPII layout, on which every MPII config runs by its data_root alone.

python tools/make_synthetic.py data/synthetic --train 2000 --val 200
"""

import argparse
import os

from hg_plugin.prepare.synthetic import make_synthetic
from hg_plugin.utils.errors import command


@command
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', metavar='OUT', help='folder to make')
    parser.add_argument(
        '--train', type=int, default=2000, metavar='N', help='training pictures (default: 2000)'
    )
    parser.add_argument(
        '--val', type=int, default=200, metavar='N', help='validation pictures (default: 200)'
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(320, 240),
        metavar=('W', 'H'),
        help='width and height of a picture in pixels (default: 320 240)',
    )
    parser.add_argument(
        '--seed', type=int, default=0, metavar='S', help='source of all randomness (default: 0)'
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=os.cpu_count() or 1,
        metavar='W',
        help='processes that draw (default: one a CPU core, here %(default)s)',
    )
    parser.add_argument('--force', action='store_true', help='write over what is in OUT')
    args = parser.parse_args()
    made = make_synthetic(
        args.out,
        num_train=args.train,
        num_val=args.val,
        picture_size=tuple(args.size),
        seed=args.seed,
        num_workers=args.workers,
        force=args.force,
    )
    print(
        f'{args.out}: {args.train} training and {args.val} validation pictures '
        f'{"made" if made else "were there already, with the same settings; nothing was done"}.'
    )


if __name__ == '__main__':
    main()
