"""Make a cache of person crops, from which a config trains several times faster: the same samples.

hg_plugin make_crops configs/hg_2stack_mpii.py data/mpii_crops
hg_plugin train configs/hg_2stack_mpii.py --data-root data/mpii_crops
"""

from .arguments import add_config, add_workers


def add_arguments(parser):
    add = parser.add_argument
    add_config(parser)
    add('out', metavar='OUT', help='the new data root')
    lossless = 'BMP windows of the decoded images as they are: twenty times larger, faster still to read'
    add('--lossless', action='store_true', help=lossless)
    add('--quality', type=int, default=90, help='of the JPEG files, 1 to 100')
    add_workers(parser)


def run(args):
    from hg_plugin.prepare.crops import make_crops
    from hg_plugin.utils.config import read_config

    cfg = read_config(args.config, data_root=args.data_root)
    make_crops(cfg, args.out, lossless=args.lossless, quality=args.quality, num_workers=args.num_workers)
