"""Fine-tune the network of the package on your own photographs.

hg_plugin prepare labelme photographs data/mine
hg_plugin finetune data/mine

The first run writes DATA/finetune.py, a config of a few lines, which later runs use with your edits.
"""

from .arguments import add_cfg_options


def add_arguments(parser):
    parser.add_argument('data', help='folder of hg_plugin prepare')
    parser.add_argument('--work-dir', metavar='DIR', help='default: DATA/work_dirs/finetune')
    parser.add_argument('--resume', action='store_true', help='continue an interrupted training')
    add_cfg_options(parser)


def run(args):
    from hg_plugin.training.finetune import finetune

    config, checkpoint = finetune(**vars(args))
    print(f'Validation photographs: {checkpoint.parent}/val.png')
    print(f'Next: hg_plugin infer {config} {checkpoint} IMAGES...')
