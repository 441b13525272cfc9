"""Make annotation files in MPII's layout for LSP or LSP extended, in the dataset's own folder.

hg_plugin prepare lsp data/lspet_dataset
hg_plugin train configs/hg_2stack_lspet.py --data-root data/lspet_dataset
"""


def add_arguments(parser):
    parser.add_argument('folder', help='the unpacked dataset, with joints.mat and images/')
    val = 'validation persons (default: half of LSP, 500 of LSP extended)'
    parser.add_argument('--val', type=int, metavar='N', help=val)


def run(args):
    from hg_plugin.prepare.lsp import prepare_lsp

    for split, count in prepare_lsp(args.folder, args.val).items():
        print(f'{split:>5}: {count:6,} persons')
    print(f'The annotations are in {args.folder}/annotations; train with --data-root {args.folder}')
