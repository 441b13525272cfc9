#!/usr/bin/env python
"""Average the weights of checkpoints that were trained from the same weights.

python tools/average_checkpoints.py CONFIG A.pth B.pth --out AVERAGE.pth --shares 3 1

Batch norms get new statistics from training images. Test the result with tools/test.py.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from mmengine.config import DictAction

from hg_plugin.apis import average_checkpoints
from hg_plugin.utils.errors import command


@command
def main():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='CONFIG', help='config file of all checkpoints')
    parser.add_argument('checkpoints', metavar='CHECKPOINT', nargs='+')
    parser.add_argument('--out', required=True, help='checkpoint to write')
    parser.add_argument(
        '--shares', type=float, nargs='+', help='what each checkpoint counts (default: all the same)'
    )
    parser.add_argument(
        '--batches', type=int, default=40, help='training batches for the statistics (default: %(default)s)'
    )
    parser.add_argument('--half', action='store_true', help='write half precision, half the size')
    parser.add_argument('--data-root', help="folder of the dataset, instead of the config's")
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='settings to override'
    )
    average_checkpoints(**vars(parser.parse_args()))


if __name__ == '__main__':
    main()
