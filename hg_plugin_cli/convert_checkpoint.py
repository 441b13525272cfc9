"""Convert a published checkpoint of a stacked hourglass network to one of this package, or back.

hg_plugin convert_checkpoint SRC OUT.pth --config-out OUT.py
hg_plugin convert_checkpoint OURS.pth OUT.pth --to princeton
"""


def add_arguments(parser):
    parser.add_argument(
        'source',
        metavar='SRC',
        help="checkpoint of Princeton's PyTorch code, of bearpaw's pytorch-pose, or Newell's .t7",
    )
    parser.add_argument('out', metavar='OUT', help='checkpoint to write')
    direction = parser.add_mutually_exclusive_group()
    direction.add_argument(
        '--config-out', metavar='FILE.py', help='config to write (default: OUT with suffix .py)'
    )
    direction.add_argument(
        '--to',
        metavar='FAMILY',
        help='code base to convert a checkpoint of this package to: princeton or bearpaw',
    )
    parser.add_argument(
        '--trust', action='store_true', help='also read files that can run any code on this machine'
    )
    parser.add_argument(
        '--normalization',
        help='of images in its training (default: that of the code base, as far as the file tells)',
    )


def run(args):
    from hg_plugin.convert.published import convert_checkpoint

    print(convert_checkpoint(**vars(args)))
