"""Time of an image through the network in every way to run it, in one run, beside MMPose's networks.

    python benchmarks/inference.py --out benchmarks/inference.md
    python benchmarks/inference.py --config CONFIG --checkpoint CHECKPOINT --data-root data/lspet_mpii

The ways take turns, so that another load of the machine meets all of them, and medians count. With
``--one-by-one`` each is measured to its end before the next is made, and table and raw figures are written
with every one. Without a checkpoint weights are random, which changes no time. With a dataset, int8 is
calibrated on photographs of its training persons, and PCKh of eager float32, bfloat16 and exports is measured
on its first validation persons. Where torch finds a GPU, the ways to run the network there are measured
instead.
"""

import argparse
import itertools
import os
import os.path as osp
import sys
import tempfile
import time
from statistics import median

import cv2
import numpy as np
import torch
import torch._dynamo
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, init_default_scope
from mmengine.runner import Runner
from networks import ROOT
from tables import MINIATURE, append_raw, device_name, tables_text, write_tables, write_whole
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from ways import BF16, CPU_WAYS, GPU_WAYS, Networks

from hg_plugin.models.reparameterize import reparameterize
from hg_plugin.utils.errors import InputError


def matrix_product(device, size, dtype=torch.float32, tf32=False):
    """A function that multiplies two large matrices, which takes ``2 * size**3`` operations; it takes any
    argument."""
    matrix = torch.randn(size, size, device=device, dtype=dtype)

    def run(image):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        return matrix @ matrix

    return run


def milliseconds(run, image):
    if not image.is_cuda:
        start = time.perf_counter()
        run(image)
        return (time.perf_counter() - start) * 1e3
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    run(image)
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def take_turns(ways, image, rounds, runs):
    """{way: median ms a run}, after a run to warm up in each of its turns."""
    times = {way: [] for way in ways}
    for turn in range(rounds):
        for way, run in ways.items():
            run(image)
            times[way] += [milliseconds(run, image) for _ in range(runs)]
        if len(ways) > 1:
            print(f'batch {len(image)}: round {turn + 1} of {rounds}', file=sys.stderr, flush=True)
    return {way: median(values) for way, values in times.items()}


class Served(nn.Module):
    """A way to run a network as the backbone of a pose estimator."""

    def __init__(self, run):
        super().__init__()
        self.run = run

    def forward(self, image):
        return (self.run(image),)


def pckh(model, run, cfg):
    """PCKh@0.5, Mean in percent, of the config's test as tools/test.py makes it, with heatmaps by ``run``."""
    model = reparameterize(model)
    model.backbone = Served(run)
    model.head.loss_module = nn.ModuleList([nn.Identity()])  # these are heatmaps, not logits
    loader = Runner.build_dataloader(cfg.test_dataloader)
    metric = METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = loader.dataset.metainfo
    for batch in loader:
        metric.process(batch, [sample.to_dict() for sample in model.test_step(batch)])
    return metric.evaluate(len(loader.dataset))['Mean']


def calibration_images(cfg, data_root, count, folder):
    """Paths of ``count`` photographs of training persons, or noise where there is no dataset."""
    if data_root is None:
        noise = np.random.RandomState(0).randint(0, 255, (256, 256, 3), np.uint8)
        cv2.imwrite(osp.join(folder, 'noise.png'), noise)
        return [osp.join(folder, 'noise.png')]
    dataset = cfg.train_dataloader.dataset
    (first, *_) = dataset.get('datasets', [dataset])
    dataset = DATASETS.build({**first, 'data_root': data_root, 'pipeline': []})
    paths = dict.fromkeys(dataset.get_data_info(index)['img_path'] for index in range(len(dataset)))
    return list(itertools.islice(paths, count))


@torch.no_grad()
def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--config', default=osp.join(ROOT, 'configs/hg_2stack_mpii.py'), help='default: hg_2stack_mpii.py'
    )
    parser.add_argument('--checkpoint', help='trained weights')
    parser.add_argument('--data-root', help='dataset in MPII layout, for calibration and PCKh')
    parser.add_argument(
        '--persons', type=int, default=200, help='whose PCKh is measured (default: %(default)s)'
    )
    parser.add_argument(
        '--calibration', type=int, default=64, help='images that int8 looks at (default: %(default)s)'
    )
    parser.add_argument(
        '--device', default='cuda' if torch.cuda.is_available() else 'cpu', help='default: %(default)s'
    )
    parser.add_argument('--threads', type=int, default=2, help='on a CPU (default: %(default)s)')
    parser.add_argument('--batches', type=int, nargs=2, help='batch sizes (default: 1 16, and 1 64 on a GPU)')
    parser.add_argument('--rounds', type=int, default=8, help='turns of each way (default: %(default)s)')
    parser.add_argument(
        '--runs',
        type=int,
        default=5,
        help='timed runs a turn with the smaller batch; one with the larger (default: %(default)s)',
    )
    parser.add_argument('--only', nargs='+', help='these ways beside eager, by their names in the table')
    parser.add_argument(
        '--one-by-one', action='store_true', help='measure each way to its end before the next is made'
    )
    parser.add_argument(
        '--gpu-ways', action='store_true', help='try the ways to run the network on a GPU on this device'
    )
    parser.add_argument(
        '--miniature', action='store_true', help='networks of a few channels, to try the command'
    )
    parser.add_argument('--raw', help='file that every result is added to, a line of JSON each')
    parser.add_argument('--out', help='Markdown file for the table')
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    init_default_scope('mmpose')
    cfg = Config.fromfile(args.config)
    gpu = torch.device(args.device).type == 'cuda'
    torch.backends.cudnn.benchmark = True
    torch._dynamo.config.cache_size_limit = (
        64  # all ways compile the same functions, for two batch sizes each
    )
    batches = args.batches or ((1, 64) if gpu else (1, 16))
    precisions = dict(fp32={}, TF32=dict(tf32=True), bf16=BF16) if gpu else dict(fp32={})
    rates = {
        name: matrix_product(args.device, 8192 if gpu else 2048, **options)
        for name, options in precisions.items()
    }

    with tempfile.TemporaryDirectory() as folder:
        images = [] if gpu else calibration_images(cfg, args.data_root, args.calibration, folder)
        networks = Networks(
            args.config, args.checkpoint, images, folder, args.threads, args.device, args.miniature
        )
        width, height = cfg.model.codec.input_size
        image = torch.randn(max(batches), 3, height, width, device=args.device)
        networks.model.to(args.device)
        with FlopCounterMode(display=False) as counter:
            networks.model.backbone(image[:1])
        operations = counter.get_total_flops()
        candidates = GPU_WAYS if gpu or args.gpu_ways else CPU_WAYS
        if args.only:
            candidates = {way: make for way, make in candidates.items() if way in ('eager', *args.only)}
        ways, missing, differences, times, scores = {}, {}, {}, [{} for _ in batches], {}

        def report():
            size = 2 * (8192 if gpu else 2048) ** 3
            floors = []
            for name in rates:
                rate = size / times[0][name] / 1e6
                milliseconds = operations / rate / 1e6
                floors.append(
                    f'{milliseconds:.3g} ms at the {rate:,.0f} GFLOP/s of a large {name} matrix product'
                )
            heading = [
                f'{device_name(args.device)}'
                + ('' if gpu else f', {args.threads} threads, {os.cpu_count()} cores'),
                f'{osp.basename(args.config)}, images of {width}x{height}, '
                f'{"trained" if args.checkpoint else "random"} weights. Medians of {args.rounds} turns; '
                '"of eager" is the share of the time of the published network in eager float32. '
                '"difference" is the largest from its heatmaps, as a share of their deviation.',
                f'Arithmetic floor of an image, {operations / 2e9:.2f} GMACs: {"; ".join(floors)}. '
                'The first release of the paper took 130 ms an image.',
            ]
            if not gpu:
                heading.append(
                    f'This CPU {"has" if has_vnni() else "does not have"} VNNI, instructions made for int8.'
                )
            if args.miniature:
                heading.append(MINIATURE.strip())
            if scores:
                heading.append(
                    f'PCKh@0.5, Mean, on the first {args.persons} validation persons of '
                    f"{osp.basename(osp.normpath(args.data_root))}, with the config's flip test; "
                    f'int8 was calibrated on {len(images)} images of training persons.'
                )
            head = [
                '',
                f'batch {batches[0]}, ms',
                'of eager',
                f'batch {batches[1]}, ms an image',
                'of eager',
                'images/s',
                'difference',
                'PCKh',
            ]
            rows = []
            for way in ways:
                large = times[1][way] / batches[1]
                rows.append(
                    [
                        way,
                        f'{times[0][way]:.4g}',
                        f'{times[0][way] / times[0]["eager"]:.2f}',
                        f'{large:.4g}',
                        f'{times[1][way] / times[1]["eager"]:.2f}',
                        f'{1e3 / large:.3g}',
                        differences[way],
                        f'{scores[way]:.2f}' if way in scores else '',
                    ]
                )
            heading += [f'Not run: {way}, because {reason}' for way, reason in missing.items()]
            return '\n\n'.join(heading), [head, *rows]

        groups = [[way] for way in candidates] if args.one_by_one else [list(candidates)]
        for group in groups:
            for way in group:
                begin = time.perf_counter()
                try:
                    run = candidates[way](networks)
                    heatmaps = run(image[:1]).float().cpu().clone()
                except InputError as error:
                    missing[way] = str(error)
                    append_raw(args.raw, way=way, failed=str(error))
                    continue
                ways[way] = run
                if way == 'eager':
                    reference = heatmaps
                differences[way] = (
                    '' if 'MMPose' in way else f'{(heatmaps - reference).abs().max() / reference.std():.1g}'
                )
                print(
                    f'{way}: the first batch came after {time.perf_counter() - begin:.1f} s',
                    file=sys.stderr,
                    flush=True,
                )
            turns = {way: ways[way] for way in group if way in ways}
            for index, (batch, runs, rounds) in enumerate(
                zip(batches, (args.runs, 1), (args.rounds, max(args.rounds // 2, 1)))
            ):
                products = rates if index == 0 and 'eager' in turns else {}
                times[index].update(take_turns({**turns, **products}, image[:batch], rounds, runs))
                if products:
                    size = 2 * (8192 if gpu else 2048) ** 3
                    append_raw(
                        args.raw,
                        device=device_name(args.device),
                        gmacs=operations / 2e9,
                        **{f'{name}_gflops': size / times[0][name] / 1e6 for name in products},
                    )
            for way in turns:
                append_raw(
                    args.raw,
                    way=way,
                    batches=batches,
                    ms=[each[way] for each in times],
                    difference=differences[way],
                )
            if args.one_by_one and args.out:
                write_whole(args.out, tables_text(*report()))

        if args.data_root and not gpu:
            loader = cfg.test_dataloader
            loader.update(num_workers=0, persistent_workers=False, pin_memory=False)
            loader.dataset.update(data_root=args.data_root, indices=args.persons)
            for way in ways:
                if way == 'eager' or any(word in way for word in ('int8', 'bfloat16', 'ONNX', 'OpenVINO')):
                    scores[way] = pckh(networks.model, ways[way], cfg)

    write_tables(args.out, *report())


def has_vnni():
    if not osp.exists('/proc/cpuinfo'):
        return False
    with open('/proc/cpuinfo') as file:
        return 'vnni' in file.read()


if __name__ == '__main__':
    main()
