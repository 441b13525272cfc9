"""Convert a published checkpoint of a stacked hourglass network to one of this package, or back.

hg_plugin convert_checkpoint SRC OUT.pth --config-out OUT.py
hg_plugin convert_checkpoint OURS.pth OUT.pth --to princeton
"""


def add_arguments(parser):
    source = "checkpoint of Princeton's PyTorch code, of bearpaw's pytorch-pose, or Newell's .t7"
    parser.add_argument('source', metavar='SRC', help=source)
    parser.add_argument('out', metavar='OUT', help='checkpoint to write')
    add = parser.add_mutually_exclusive_group().add_argument
    add('--config-out', metavar='FILE.py', help='config to write (default: OUT with suffix .py)')
    add('--to', metavar='FAMILY', help='convert a checkpoint of this package to: princeton or bearpaw')
    add = parser.add_argument
    add('--trust', action='store_true', help='also read files that can run any code on this machine')
    add('--normalization', help='of images in its training (default: that of the code base)')


def run(args):
    from hg_plugin.convert.published import convert_checkpoint

    print(convert_checkpoint(**vars(args)))
