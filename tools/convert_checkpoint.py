#!/usr/bin/env python
"""Convert a published checkpoint of a stacked hourglass network to one of this package, or back.

python tools/convert_checkpoint.py SRC OUT.pth --config-out OUT.py
python tools/convert_checkpoint.py OURS.pth OUT.pth --to princeton
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from hg_plugin.convert.families import FAMILIES, NORMALIZATIONS
from hg_plugin.convert.published import convert_checkpoint
from hg_plugin.utils.errors import command


@command
def main():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument(
        'source',
        metavar='SRC',
        help="checkpoint of Princeton's PyTorch code, of bearpaw's pytorch-pose, or Newell's .t7",
    )
    parser.add_argument('out', metavar='OUT', help='checkpoint to write')
    parser.add_argument(
        '--config-out', metavar='FILE.py', help='config to write (default: OUT with suffix .py)'
    )
    parser.add_argument('--to', choices=FAMILIES, help='code base to convert a checkpoint of this package to')
    parser.add_argument(
        '--trust', action='store_true', help='also read files that can run any code on this machine'
    )
    parser.add_argument(
        '--normalization',
        choices=NORMALIZATIONS,
        help='of images in its training (default: that of the code base, as far as the file tells)',
    )
    args = parser.parse_args()
    if args.to and args.config_out:
        parser.error('--config-out is for the other direction than --to')
    print(convert_checkpoint(**vars(args)))


if __name__ == '__main__':
    main()
