"""Check the images and annotations of all datasets of a config.

The exit code is 1 if something is bad: an image that cannot be read, a wrong annotation, a person outside of
the image.
"""

import sys
from pathlib import Path

from .arguments import add_config, add_workers


def add_arguments(parser):
    add_config(parser)
    out = 'list of all findings (default: work_dirs/CONFIG/data_check.json)'
    parser.add_argument('--out', metavar='FILE.json', help=out)
    add_workers(parser)


def run(args):
    from hg_plugin.training.data_check import check_data
    from hg_plugin.utils.config import read_config

    out = args.out or f'work_dirs/{Path(args.config).stem}/data_check.json'
    cfg = read_config(args.config, data_root=args.data_root)
    sys.exit(1 if check_data(cfg, out, num_workers=args.num_workers) else 0)
