"""Average the weights of checkpoints that were trained from the same weights.

    hg_plugin average_checkpoints CONFIG A.pth B.pth --out AVERAGE.pth --shares 3 1

Batch norms get new statistics from training images. Test the result with hg_plugin test.
"""

from .arguments import add_cfg_options, add_config


def add_arguments(parser):
    add = parser.add_argument
    add_config(parser)
    add('checkpoints', metavar='CHECKPOINT', nargs='+')
    add('--out', required=True, metavar='FILE.pth', help='checkpoint to write')
    add('--shares', type=float, nargs='+', help='what each checkpoint counts (default: all the same)')
    add('--batches', type=int, default=40, help='training batches for the statistics')
    add('--half', action='store_true', help='write half precision, half the size')
    add_cfg_options(parser)


def run(args):
    from hg_plugin.training.average import average_checkpoints

    average_checkpoints(**vars(args))
