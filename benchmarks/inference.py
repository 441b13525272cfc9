"""Time of an image through the network in every way to run it, in one run, beside MMPose's hourglass52.

    python benchmarks/inference.py --out benchmarks/inference.md
    python benchmarks/inference.py --config CONFIG --checkpoint CHECKPOINT --data-root data/lspet_mpii

The ways take turns, so that another load of the machine meets all of them, and medians count. With
``--one-by-one`` each is measured to its end before the next is made, and table and raw figures are written
with every one. Without a checkpoint weights are random, which changes no time. With a dataset, int8 is
calibrated on photographs of its training persons, and PCKh of float32 and of int8 is measured on its first
validation persons. Where torch finds a GPU, the ways to run the network there are measured instead.
"""

import argparse
import contextlib
import copy
import itertools
import os
import os.path as osp
import shutil
import sys
import tempfile
import time
from functools import partial
from statistics import median

import cv2
import mmpose
import numpy as np
import torch
import torch._dynamo
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, MODELS, init_default_scope
from mmengine.runner import Runner
from tables import append_raw, device_name, make_miniature, tables_text, write_tables, write_whole
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hg_plugin.deploy.decoding import LastHeatmaps
from hg_plugin.deploy.export import export
from hg_plugin.deploy.ncnn import ncnn_runner
from hg_plugin.engine.hooks import keep_freed_memory
from hg_plugin.models.reparameterize import reparameterize
from hg_plugin.utils.errors import InputError, need_packages

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
STOCK = osp.join(
    osp.dirname(mmpose.__file__),
    '.mim/configs/body_2d_keypoint/topdown_heatmap/mpii/td-hm_hourglass52_8xb64-210e_mpii-256x256.py',
)


class Networks:
    """The network in all the forms that the ways start from.

    Args:
        config, checkpoint: The trained network; random weights without a checkpoint.
        images: What int8 is calibrated on.
        folder: Where exported files go.
        threads: Of the back ends that ask for a number.
        device: Of the ways to run the network on a GPU.
        miniature: Networks of a few channels.
    """

    def __init__(self, config, checkpoint, images, folder, threads, device='cpu', miniature=False):
        self.config, self.images, self.folder, self.threads, self.device = (
            config,
            images,
            folder,
            threads,
            torch.device(device),
        )
        cfg, stock = Config.fromfile(config), Config.fromfile(STOCK)
        if miniature:
            make_miniature(cfg)
            make_miniature(stock)
        self.model = MODELS.build(cfg.model).eval()
        self.checkpoint = checkpoint or osp.join(folder, 'random.pth')
        if checkpoint is None:
            torch.save(self.model.state_dict(), self.checkpoint)
        state = torch.load(self.checkpoint, map_location='cpu')
        self.model.load_state_dict(state.get('state_dict', state))
        self.model.to(memory_format=torch.contiguous_format)
        self.stock = MODELS.build(stock.model).eval()
        self.files = {}

    def file(self, kind):
        """The exported network: 'float32', 'int8' or 'ncnn', made when first asked for."""
        if kind not in self.files:
            out = osp.join(self.folder, f'{kind}.{"param" if kind == "ncnn" else "onnx"}')
            images = self.images if kind == 'int8' else None
            export(
                self.config,
                self.checkpoint,
                out,
                format='onnx' if kind == 'float32' else kind,
                calibration_images=images,
            )
            self.files[kind] = out
        return self.files[kind]


# The ways: each takes the networks and returns a function from images (N, 3, H, W) to the last heatmaps (N,
# K, H/4, W/4), or raises an InputError that says what is missing.


def eager(networks):
    return LastHeatmaps(networks.model)


def eager_channels_last(networks):
    return LastHeatmaps(copy.deepcopy(networks.model)).to(memory_format=torch.channels_last)


def reparameterized(networks):
    return LastHeatmaps(reparameterize(networks.model))


def memory_kept(networks):
    """As tools/infer.py runs it, with the memory of :func:`keep_freed_memory`, which a process of its own
    does not share with the others."""
    context = torch.multiprocessing.get_context('spawn')
    connection, other_end = context.Pipe()
    context.Process(
        target=serve, args=(other_end, networks.config, networks.checkpoint, networks.threads), daemon=True
    ).start()

    def run(image):
        connection.send(image)
        return connection.recv()

    return run


@torch.no_grad()
def serve(connection, config, checkpoint, threads):
    keep_freed_memory()
    torch.set_num_threads(threads)
    init_default_scope('mmpose')
    run = reparameterized(Networks(config, checkpoint, [], '', threads))
    with contextlib.suppress(EOFError):  # the other end was closed
        while True:
            connection.send(run(connection.recv()))


def compiled(networks):
    compiler = os.environ.get('CXX', 'g++')
    if not shutil.which(compiler):
        raise InputError(f'torch.compile needs the compiler {compiler}.')
    return torch.compile(LastHeatmaps(reparameterize(networks.model)), dynamic=False)


def onnx_runtime(networks, kind='float32'):
    need_packages('onnxruntime', 'onnxruntime')
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = networks.threads
    session = onnxruntime.InferenceSession(networks.file(kind), options, providers=['CPUExecutionProvider'])
    return lambda image: torch.from_numpy(session.run(None, {'image': image.numpy()})[0])


def openvino(networks, kind='float32'):
    need_packages('openvino', 'openvino')
    import openvino

    hints = dict(PERFORMANCE_HINT='LATENCY', INFERENCE_NUM_THREADS=networks.threads, NUM_STREAMS=1)
    if kind == 'float32':
        hints.update(INFERENCE_PRECISION_HINT='f32')  # by default, newer CPUs compute with less
    request = openvino.Core().compile_model(networks.file(kind), 'CPU', hints).create_infer_request()
    return lambda image: torch.from_numpy(request.infer({'image': image.numpy()}).to_tuple()[0].copy())


def ncnn(networks):
    return ncnn_runner(osp.splitext(networks.file('ncnn'))[0], networks.threads)


def hourglass52(networks):
    return LastHeatmaps(networks.stock)


def on_gpu(networks, network, dtype=torch.float32, tf32=False, compiled=None, graphs=False):
    """The model's backbone ('trained'), its reparameterized copy or 'hourglass52' on the GPU.

    ``compiled`` is torch.compile's mode; with ``graphs``, CUDA graphs replay what torch's own kernels did.
    """
    if graphs and networks.device.type != 'cuda':
        raise InputError('CUDA graphs need a GPU.')
    model = networks.stock if network == 'hourglass52' else networks.model
    model = reparameterize(model) if network == 'reparameterized' else copy.deepcopy(model)
    network = LastHeatmaps(model).to(networks.device, dtype)
    network.to(memory_format=torch.channels_last if dtype == torch.bfloat16 else torch.contiguous_format)
    if compiled and networks.device.type == 'cuda':
        network = torch.compile(network, mode=compiled, dynamic=False)
    elif compiled:
        network = torch.compile(network, backend='aot_eager', dynamic=False)  # traces, and needs no compiler

    def run(image):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        if compiled == 'reduce-overhead':
            torch.compiler.cudagraph_mark_step_begin()
        return network(image.to(dtype))

    return recorded(run) if graphs else run


def recorded(run):
    """``run`` as CUDA graphs, one for each batch size, recorded at the first call with it; a call overwrites
    what the one before returned."""
    graphs = {}

    def replay(image):
        if image.shape not in graphs:
            given, stream = image.clone(), torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):  # cuDNN chooses its convolutions
                    run(given)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                heatmaps = run(given)
            graphs[image.shape] = graph, given, heatmaps
        graph, given, heatmaps = graphs[image.shape]
        given.copy_(image)
        graph.replay()
        return heatmaps

    return replay


CPU_WAYS = {
    'eager': eager,
    'eager, channels_last': eager_channels_last,
    'reparameterized': reparameterized,
    'reparameterized, freed memory kept': memory_kept,
    'reparameterized, torch.compile': compiled,
    'ONNX Runtime': onnx_runtime,
    'OpenVINO': openvino,
    'ncnn': ncnn,
    'int8, ONNX Runtime': partial(onnx_runtime, kind='int8'),
    'int8, OpenVINO': partial(openvino, kind='int8'),
    "MMPose's hourglass52, eager": hourglass52,
}
BF16 = dict(dtype=torch.bfloat16)
# most worthy first: a time limit takes the last, which are compiled
GPU_WAYS = {
    'eager': partial(on_gpu, network='trained'),
    'reparameterized': partial(on_gpu, network='reparameterized'),
    'reparameterized, bf16, channels_last': partial(on_gpu, network='reparameterized', **BF16),
    'reparameterized, bf16, channels_last, CUDA graphs': partial(
        on_gpu, network='reparameterized', graphs=True, **BF16
    ),
    "MMPose's hourglass52, eager": partial(on_gpu, network='hourglass52'),
    'reparameterized, CUDA graphs': partial(on_gpu, network='reparameterized', graphs=True),
    'eager, TF32': partial(on_gpu, network='trained', tf32=True),
    'eager, bf16, channels_last': partial(on_gpu, network='trained', **BF16),
    'reparameterized, TF32': partial(on_gpu, network='reparameterized', tf32=True),
    'reparameterized, TF32, CUDA graphs': partial(on_gpu, network='reparameterized', tf32=True, graphs=True),
    "MMPose's hourglass52, TF32": partial(on_gpu, network='hourglass52', tf32=True),
    "MMPose's hourglass52, bf16, channels_last": partial(on_gpu, network='hourglass52', **BF16),
    'reparameterized, bf16, channels_last, compiled': partial(
        on_gpu, network='reparameterized', compiled='default', **BF16
    ),
    'reparameterized, bf16, channels_last, compiled with CUDA graphs': partial(
        on_gpu, network='reparameterized', compiled='reduce-overhead', **BF16
    ),
    'reparameterized, compiled': partial(on_gpu, network='reparameterized', compiled='default'),
    'reparameterized, TF32, compiled': partial(
        on_gpu, network='reparameterized', tf32=True, compiled='default'
    ),
}


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
                    f'GPU: not measured. This CPU {"has" if has_vnni() else "does not have"} VNNI, '
                    'instructions made for int8.'
                )
            if args.miniature:
                heading.append('**Networks of a few channels: a try of the command, not a measurement.**')
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
                    ''
                    if 'hourglass52' in way
                    else f'{(heatmaps - reference).abs().max() / reference.std():.1g}'
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
                if way == 'eager' or 'int8' in way:
                    scores[way] = pckh(networks.model, ways[way], cfg)

    write_tables(args.out, *report())


def has_vnni():
    if not osp.exists('/proc/cpuinfo'):
        return False
    with open('/proc/cpuinfo') as file:
        return 'vnni' in file.read()


if __name__ == '__main__':
    main()
