#!/usr/bin/env python
"""Makes a cache of person crops, from which a config trains several times faster: the same samples, without
decoding whole images.

python tools/make_crops.py configs/hg_2stack_mpii.py data/mpii_crops
python tools/train.py configs/hg_2stack_mpii.py --data-root data/mpii_crops
"""

import argparse
import os

from hg_plugin.prepare.crops import make_crops
from hg_plugin.utils.config import read_config
from hg_plugin.utils.errors import command


@command
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file, whose augmentation tells how large crops must be')
    parser.add_argument('out', help='the new data root')
    parser.add_argument('--data-root', help="folder of the full images, instead of the config's")
    parser.add_argument(
        '--lossless',
        action='store_true',
        help='BMP windows of the decoded images as they are: twenty times larger, faster still to read',
    )
    parser.add_argument(
        '--quality', type=int, default=90, help='of the JPEG files, 1 to 100 (default: %(default)s)'
    )
    parser.add_argument(
        '--workers',
        type=int,
        default=os.cpu_count() or 1,
        metavar='W',
        help='processes (default: one a CPU core, here %(default)s)',
    )
    args = parser.parse_args()
    cfg = read_config(args.config, data_root=args.data_root)
    make_crops(cfg, args.out, lossless=args.lossless, quality=args.quality, num_workers=args.workers)


if __name__ == '__main__':
    main()
