"""Time of one picture through two stacks: eager torch, the same reparameterized, and the exported file in onnxruntime.

    OMP_NUM_THREADS=2 python benchmarks/onnx_latency.py | tee benchmarks/onnx_latency.md

Weights are random, which changes no time. The three take turns, so that another load of the machine meets all of them.
"""
import argparse
import os
import platform
import statistics
import tempfile
import time

from hg_plugin.apis.export import export
from hg_plugin.models.reparameterize import reparameterize

import numpy as np
import onnxruntime
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope


def processor():
    with open('/proc/cpuinfo') as lines:
        names = [line.split(':')[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor()


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config', default='configs/hg_2stack_mpii.py', help='default: %(default)s')
    parser.add_argument('--threads', type=int, default=2, help='of torch and of onnxruntime (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=15, help='turns of each (default: %(default)s)')
    parser.add_argument('--runs', type=int, default=4,
                        help='runs a turn, the first of which does not count (default: %(default)s)')
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    init_default_scope('mmpose')
    cfg = Config.fromfile(args.config)
    model = MODELS.build(cfg.model).eval()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), os.path.join(folder, 'random.pth'))
        out = os.path.join(folder, 'random.onnx')
        export(args.config, os.path.join(folder, 'random.pth'), out)
        session = onnxruntime.InferenceSession(out, options, providers=['CPUExecutionProvider'])

    width, height = cfg.codec.input_size
    image = torch.randn(1, 3, height, width)
    array = image.numpy()
    fast = reparameterize(model).backbone
    ways = {
        'torch, eager': lambda: model.backbone(image),
        'torch, eager, reparameterized': lambda: fast(image),
        'onnxruntime, exported file': lambda: session.run(None, {'image': array}),
    }
    times = {way: [] for way in ways}
    for _ in range(args.rounds):
        for way, run in ways.items():
            for index in range(args.runs):
                start = time.perf_counter()
                run()
                if index:  # the first finds the caches and threads of the way before
                    times[way].append(1e3 * (time.perf_counter() - start))

    eager = statistics.median(times['torch, eager'])
    print(f'# {args.config}, one picture of {width}x{height}, {args.threads} threads\n')
    print(f'{processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, torch {torch.__version__}, '
          f'onnxruntime {onnxruntime.__version__}; {len(times["torch, eager"])} runs of each, in {args.rounds} turns\n')
    print('| | median, ms | 10th to 90th percentile, ms | of eager torch |\n|---|---|---|---|')
    for way, values in times.items():
        low, high = np.percentile(values, [10, 90])
        median = statistics.median(values)
        print(f'| {way} | {median:.0f} | {low:.0f} to {high:.0f} | {median / eager:.2f} |')


if __name__ == '__main__':
    main()
