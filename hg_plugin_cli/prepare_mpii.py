"""Make MPII's annotation files from the official release.

hg_plugin prepare mpii --mat mpii_human_pose_v1_u12_1.mat --out data/mpii
hg_plugin check hg_plugin::hg_2stack_mpii.py --data-root data/mpii         # the images, in data/mpii/images
"""


def add_arguments(parser):
    add = parser.add_argument
    add('--mat', required=True, metavar='FILE', help='mpii_human_pose_v1_u12_1.mat from MPII')
    add('--out', default='data/mpii', metavar='OUT', help='data root')
    add('--allow-partial', action='store_true', help='accept a release file that lacks persons')


def run(args):
    from hg_plugin.prepare.mpii_release import prepare_mpii

    persons = prepare_mpii(args.mat, args.out, allow_partial=args.allow_partial)
    for split in ('train', 'val', 'test'):
        images = {person['image'] for person in persons[split]}
        print(f'{split:>5}: {len(persons[split]):6,} persons in {len(images):6,} images')
    print(f'{len(persons["left_out"]):,} other persons are in images of the validation set, and in no set.')
    print(f'The annotations are in {args.out}/annotations; the images belong into {args.out}/images.')
    print(f'Next: hg_plugin check hg_plugin::hg_2stack_mpii.py --data-root {args.out}')
