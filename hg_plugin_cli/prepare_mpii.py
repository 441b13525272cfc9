"""Make MPII's annotation files from the official release, and check its images.

hg_plugin prepare mpii --mat mpii_human_pose_v1_u12_1.mat --images data/mpii/images --out data/mpii
"""

import os

from .arguments import add_workers


def add_arguments(parser):
    add = parser.add_argument
    add('--mat', required=True, metavar='FILE', help='mpii_human_pose_v1_u12_1.mat from MPII')
    add('--images', metavar='DIR', help='folder of the images (default: OUT/images)')
    add('--out', default='data/mpii', metavar='OUT', help='data root')
    add('--no-check', action='store_true', help='do not check the images')
    add('--allow-partial', action='store_true', help='accept a release file that lacks persons')
    add_workers(parser)


def run(args):
    from hg_plugin.prepare.mpii_release import check_images, prepare_mpii
    from hg_plugin.utils.errors import InputError

    folder = args.images or os.path.join(args.out, 'images')
    if not args.no_check and not os.path.isdir(folder):
        raise InputError(f'There is no folder {folder}; name it with --images, or give --no-check.')

    print(f'Reading {args.mat} ...', flush=True)
    persons = prepare_mpii(args.mat, args.out, allow_partial=args.allow_partial)
    images = {split: {person['image'] for person in persons[split]} for split in ('train', 'val', 'test')}
    for split, names in images.items():
        print(f'{split:>5}: {len(persons[split]):6,} persons in {len(names):6,} images')
    print(f'{len(persons["left_out"]):,} other persons are in images of the validation set, and in no set.')
    if unplaced := len(persons['unplaced']):
        print(f'{unplaced:,} persons that single_person lists for the test set lack objpos or scale.')
    print(f'The annotations are in {os.path.join(args.out, "annotations")}.')
    if args.no_check:
        return

    names = sorted(set.union(*images.values()))
    print(f'Checking {len(names):,} images in {folder} ...', flush=True)
    defects = check_images(folder, names, num_workers=args.num_workers)
    if defects:
        print(*defects.values(), sep='\n')
        raise InputError(
            f'{len(defects):,} of {len(names):,} images in {folder} are missing or damaged (listed above); '
            'get them again. The annotations are written.'
        )
    print('All images are there and can be decoded.')
    expected = os.path.join(args.out, 'images')
    if os.path.realpath(folder) != os.path.realpath(expected):
        print(f'The configs look for them in {expected}: ln -s {os.path.abspath(folder)} {expected}')
