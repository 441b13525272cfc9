#!/usr/bin/env python
"""Makes MPII's annotation files from the official release, and checks its pictures.

python tools/prepare_mpii.py --mat mpii_human_pose_v1_u12_1.mat --images data/mpii/images --out data/mpii
"""

import argparse
import os

from hg_plugin.prepare.mpii_release import check_pictures, prepare_mpii
from hg_plugin.utils.errors import InputError, command


@command
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--mat', required=True, metavar='FILE', help='mpii_human_pose_v1_u12_1.mat, as MPII distributes it'
    )
    parser.add_argument('--images', metavar='DIR', help='folder of the pictures (default: OUT/images)')
    parser.add_argument(
        '--out',
        default='data/mpii',
        metavar='OUT',
        help='data root, for OUT/annotations (default: data/mpii)',
    )
    parser.add_argument('--no-check', action='store_true', help='do not look at the pictures')
    parser.add_argument(
        '--workers',
        type=int,
        default=os.cpu_count() or 1,
        metavar='W',
        help='processes that check pictures (default: one a CPU core, here %(default)s)',
    )
    parser.add_argument(
        '--allow-partial', action='store_true', help='accept a release file that lacks persons'
    )
    args = parser.parse_args()
    folder = args.images or os.path.join(args.out, 'images')
    if not args.no_check and not os.path.isdir(folder):
        raise InputError(
            f"there is no folder {folder}; put MPII's pictures there, name their folder with --images, "
            'or leave them unchecked with --no-check.'
        )

    print(f'Reading {args.mat} ...', flush=True)
    persons = prepare_mpii(args.mat, args.out, allow_partial=args.allow_partial)
    for split in ('train', 'val', 'test'):
        pictures = {person['image'] for person in persons[split]}
        print(f'{split:>5}: {len(persons[split]):6,} persons in {len(pictures):6,} pictures')
    print(
        f'{len(persons["left_out"]):,} other persons are in pictures of the validation set, and so in no set.'
    )
    if persons['unplaced']:
        print(
            f'{len(persons["unplaced"]):,} persons that single_person lists for the test set lack objpos or scale, and so '
            'are not in mpii_test.json.'
        )
    print(f'The annotations are in {os.path.join(args.out, "annotations")}.')
    if args.no_check:
        return

    images = sorted({person['image'] for split in ('train', 'val', 'test') for person in persons[split]})
    print(f'Checking {len(images):,} pictures in {folder} ...', flush=True)
    defects = check_pictures(folder, images, num_workers=args.workers)
    for image, defect in defects.items():
        print(f'{image} {defect}')
    if defects:
        raise InputError(
            f'{len(defects):,} of {len(images):,} pictures in {folder} are missing or broken (listed '
            'above), so get them again; the annotations are written.'
        )
    print('All pictures are there and can be decoded.')
    expected = os.path.join(args.out, 'images')
    if os.path.realpath(folder) != os.path.realpath(expected):
        print(f'The configs look for them in {expected}: ln -s {os.path.abspath(folder)} {expected}')


if __name__ == '__main__':
    main()
