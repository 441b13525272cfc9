#!/usr/bin/env python
"""Check the images and annotations of all datasets of a config: python tools/check.py CONFIG [options]

The exit code is 1 if something is bad: an image that cannot be read, a wrong annotation, a person outside of
the image.
"""

import argparse
import os
import sys
from pathlib import Path

from hg_plugin.training.data_check import check_data
from hg_plugin.utils.config import read_config
from hg_plugin.utils.errors import command


@command
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('--data-root', help="folder of the dataset, instead of the config's")
    parser.add_argument('--out', help='list of all findings (default: work_dirs/CONFIG/data_check.json)')
    parser.add_argument(
        '--workers',
        type=int,
        default=os.cpu_count() or 1,
        metavar='W',
        help='processes (default: one a CPU core, here %(default)s)',
    )
    args = parser.parse_args()
    out = args.out or f'work_dirs/{Path(args.config).stem}/data_check.json'
    cfg = read_config(args.config, data_root=args.data_root)
    sys.exit(1 if check_data(cfg, out, num_workers=args.workers) else 0)


if __name__ == '__main__':
    main()
