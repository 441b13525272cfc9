#!/usr/bin/env python
"""Converts a published checkpoint of a stacked hourglass network into one of this package, with a config, or
back.

python tools/convert_checkpoint.py SRC OUT.pth --config-out OUT.py
python tools/convert_checkpoint.py OURS.pth OUT.pth --to princeton
"""

import argparse
import os.path as osp

from hg_plugin.convert.published import FAMILIES, export_checkpoint, import_checkpoint
from hg_plugin.utils.errors import command


@command
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'source',
        metavar='SRC',
        help="checkpoint of Princeton's PyTorch code, of bearpaw's pytorch-pose, or Newell's .t7",
    )
    parser.add_argument('out', metavar='OUT', help='checkpoint to write')
    parser.add_argument(
        '--config-out', metavar='FILE.py', help='config to write (default: OUT with .py as its ending)'
    )
    parser.add_argument(
        '--to', choices=FAMILIES, help='SRC is a checkpoint of this package: write it as one of theirs'
    )
    parser.add_argument(
        '--trust',
        action='store_true',
        help='read a file that holds more than weights, and so may run any code on this machine',
    )
    args = parser.parse_args()
    if args.to and args.config_out:
        parser.error('--config-out is for the other direction than --to')

    if args.to:
        print(export_checkpoint(args.source, args.out, args.to, trust=args.trust), f'-> {args.out}')
    else:
        config_out = args.config_out or f'{osp.splitext(args.out)[0]}.py'
        print(
            import_checkpoint(args.source, args.out, config_out, trust=args.trust),
            f'-> {args.out}, {config_out}',
        )


if __name__ == '__main__':
    main()
