#!/usr/bin/env python
"""Finds persons' keypoints in pictures, folders of pictures and videos.

    python tools/infer.py CONFIG CHECKPOINT picture.jpg folder/ clip.mp4 --out-dir outputs

writes outputs/predictions/*.json in the format of MMPose's inferencers, and drawn skeletons in outputs/visualizations/.
A file that cannot be read is left out and listed at the end, and the exit code is then 1.
"""

import argparse

from hg_plugin.engine.hooks import keep_freed_memory
from hg_plugin.inference.files import InferenceFiles
from hg_plugin.inference.inputs import find_inputs, output_names, read_boxes
from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.utils.errors import InputError, command


@command
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('inputs', nargs='+', metavar='input', help='picture, folder of pictures, or video')
    parser.add_argument(
        '--out-dir', default='outputs', metavar='DIR', help='folder of the results (default: outputs)'
    )
    parser.add_argument(
        '--boxes',
        metavar='FILE.json',
        help='boxes of persons, in pixels: {"a.jpg": [[left, top, right, bottom], ...]} '
        '(default: one as large as the picture)',
    )
    parser.add_argument(
        '--heatmaps',
        action='store_true',
        help="also draw, for every person, every keypoint's heatmap after every stack: DIR/heatmaps",
    )
    parser.add_argument('--no-draw', action='store_true', help='draw no skeletons')
    parser.add_argument(
        '--kpt-thr',
        type=float,
        default=0.3,
        metavar='SCORE',
        help='lowest score of a keypoint that is drawn (default: 0.3)',
    )
    parser.add_argument('--flip-test', action='store_true', help='average with the mirrored picture')
    parser.add_argument(
        '--scales',
        type=float,
        nargs='+',
        default=[1.0],
        metavar='SCALE',
        help='average over crops of these sizes, such as 0.8 0.9 1 1.1 1.2 1.3 (default: 1)',
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=16,
        metavar='N',
        help='persons that go through the network at once (default: 16)',
    )
    parser.add_argument('--device', help='cpu, cuda, cuda:1, ... (default: a GPU if torch can use one)')
    args = parser.parse_args()

    keep_freed_memory()
    inputs = find_inputs(args.inputs)
    boxes = read_boxes(args.boxes, inputs) if args.boxes else None
    estimator = PoseEstimator(args.config, args.checkpoint, device=args.device, batch_size=args.batch_size)
    files = InferenceFiles(
        estimator,
        args.out_dir,
        draw=not args.no_draw,
        heatmaps=args.heatmaps,
        kpt_thr=args.kpt_thr,
        flip_test=args.flip_test,
        scales=args.scales,
    )
    left_out = files.run(inputs, boxes)

    for path, name in output_names(inputs).items():
        if path not in left_out and name != path.stem:
            print(f'{path}: its results are called {name}, because another has the name {path.stem}')
    if len(left_out) < len(inputs):
        print(f'{len(inputs) - len(left_out)} of {len(inputs)} files: the results are in {args.out_dir}')
    if len(inputs) == len(left_out) == 1:
        raise InputError(*left_out.values())
    if left_out:
        print(*left_out.values(), sep='\n')
        raise InputError(f'{len(left_out)} of {len(inputs)} files were left out, for the reasons above.')


if __name__ == '__main__':
    main()
