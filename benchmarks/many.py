"""How fast `hg_plugin infer --out` is on one core and on all, and how much memory it takes.

    python benchmarks/many.py FOLDER [--images 400] [--whole-image] [--backend torch|openvino|FILE.onnx]

The images of FOLDER are taken again and again, up to so many. Prints images/s of rows on one core, of
PoseEstimator.stream on all, and of rows on all, with the memory after a tenth, a half and all of the images.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

import torch

from hg_plugin.apis import PoseEstimator, infer_many
from hg_plugin.inference.image_parts import list_images
from hg_plugin.utils.progress import Progress


def megabytes() -> float:
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20


def measure(args: argparse.Namespace) -> str:
    """What is said of one way, in a process of its own."""
    os.sched_setaffinity(0, {*range(args.cores)})
    torch.set_num_threads(args.cores)
    estimator = PoseEstimator(device='cpu', bfloat16=True, backend=args.backend)
    paths = list_images(args.folder)
    paths = (paths * (args.images // len(paths) + 1))[: args.images]
    options = dict(whole_image=args.whole_image)
    estimator(paths[0], **options)
    count, memory = 0, []

    def update(progress, note=''):
        nonlocal count
        count += 1
        if count in (args.images // 10, args.images // 2, args.images):
            memory.append(f'{megabytes():.0f}')

    Progress.update = update
    start = time.perf_counter()
    if args.way == 'stream':
        for _ in estimator.stream(((path, None) for path in paths), **options):
            pass
    else:
        with tempfile.TemporaryDirectory() as folder:
            infer_many(estimator, paths, f'{folder}/people.jsonl', workers=args.cores, **options)
    speed = args.images / (time.perf_counter() - start)
    used = f'; {", ".join(memory)} MB' if memory else ''
    return f'{args.way}, {args.cores} cores: {speed:.1f} images/s{used}'


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder')
    parser.add_argument('--images', type=int, default=400)
    parser.add_argument('--whole-image', action='store_true')
    parser.add_argument('--backend', default='torch')
    parser.add_argument('--way', choices=['rows', 'stream'], help='measure this alone')
    parser.add_argument('--cores', type=int, default=1)
    args = parser.parse_args()
    if args.way:
        print(measure(args))
        return
    for way, cores in (('rows', 1), ('stream', os.cpu_count()), ('rows', os.cpu_count())):
        subprocess.run([sys.executable, *sys.argv, '--way', way, '--cores', str(cores)], check=True)


if __name__ == '__main__':
    main()
