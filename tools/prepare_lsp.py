#!/usr/bin/env python
"""Make annotation files in MPII's layout for LSP or LSP extended, in the dataset's own folder.

python tools/prepare_lsp.py data/lspet_dataset
python tools/train.py configs/hg_2stack_lspet.py --data-root data/lspet_dataset
"""

import argparse

from hg_plugin.prepare.lsp import prepare_lsp
from hg_plugin.utils.errors import command


@command
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', help='the unpacked dataset, with joints.mat and images/')
    parser.add_argument(
        '--val', type=int, metavar='N', help='validation persons (default: half of LSP, 500 of LSP extended)'
    )
    args = parser.parse_args()
    for split, count in prepare_lsp(args.folder, args.val).items():
        print(f'{split:>5}: {count:6,} persons')
    print(f'The annotations are in {args.folder}/annotations; train with --data-root {args.folder}')


if __name__ == '__main__':
    main()
