"""Make a dataset of synthetic persons in the MPII layout. Any MPII config runs on it with --data-root.

hg_plugin make_synthetic data/synthetic --train 2000 --val 200
"""

from .arguments import add_workers


def add_arguments(parser):
    add = parser.add_argument
    add('out_dir', metavar='OUT', help='folder to make')
    add('--train', dest='num_train', type=int, default=2000, metavar='N', help='training images')
    add('--val', dest='num_val', type=int, default=200, metavar='N', help='validation images')
    size = dict(dest='image_size', type=int, nargs=2, default=(320, 240), metavar=('W', 'H'))
    add('--size', **size, help='image size')
    add('--seed', type=int, default=0, metavar='S', help='random seed')
    add_workers(parser)


def run(args):
    from hg_plugin.prepare.synthetic import make_synthetic

    args.image_size = tuple(args.image_size)
    made = make_synthetic(**vars(args))
    done = 'made' if made else 'are there already, with the same settings'
    print(f'{args.out_dir}: {args.num_train} training and {args.num_val} validation images {done}.')
