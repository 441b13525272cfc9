"""Convert a published checkpoint of a stacked hourglass network to one of this package.

hg_plugin convert_checkpoint SRC OUT.pth --config-out OUT.py
"""


def add_arguments(parser):
    source = "checkpoint of Princeton's PyTorch code, of bearpaw's pytorch-pose, or Newell's .t7"
    add = parser.add_argument
    add('source', metavar='SRC', help=source)
    add('out', metavar='OUT', help='checkpoint to write')
    add('--config-out', metavar='FILE.py', help='config to write (default: OUT with suffix .py)')
    add('--trust', action='store_true', help='also read files that can run any code on this machine')
    add('--normalization', help='of images in its training (default: that of the code base)')


def run(args):
    from hg_plugin.convert.published import convert_checkpoint

    print(convert_checkpoint(**vars(args)))
