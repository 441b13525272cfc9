"""Training steps: pictures per second, memory and time to the first step, beside MMPose's hourglass52.

    python benchmarks/train.py --out benchmarks/train.md                                    # on the GPU if there is one
    python benchmarks/train.py --data-root data/mpii_crops --workers 16                     # and with the real pipeline
    python benchmarks/train.py --device cpu --batch 4 --steps 3 --networks hourglass52,2-eager,2-fast

A step is MMEngine's ``train_step`` on a batch that lies on the device: normalisation, targets, forward, backward, optimiser. With ``--data-root`` the
batches come out of the config's own loader instead. Networks take turns in processes of their own, so that each one's memory and compilation are its own.
"""
import argparse
import json
import os
import os.path as osp
import subprocess
import sys
import tempfile
import time
from statistics import median

import mmpose
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from mmpose.structures import PoseDataSample
from tables import device_name, write_tables

from hg_plugin.engine.optim_wrapper import cpu_has_bfloat16

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
STOCK = osp.join(osp.dirname(mmpose.__file__), '.mim/configs/body_2d_keypoint/topdown_heatmap/mpii/td-hm_hourglass52_8xb64-210e_mpii-256x256.py')
OURS = osp.join(ROOT, 'configs/hg_{}stack_mpii.py')
EAGER = dict(optim_wrapper=dict(dtype=None, optimizer=dict(fused=False)), model=dict(backbone=dict(channels_last=False)),
             default_hooks=dict(tf32=dict(enable=False), keep_memory=dict(enable=False)))
# name: config, changes, operations of a picture and step in GFLOP (forward, and twice that backward)
NETWORKS = {
    'hourglass52': ("MMPose's hourglass52, its config", STOCK, {}, None),
    'hourglass52-amp': ("MMPose's hourglass52, --amp", STOCK, dict(optim_wrapper=dict(type='AmpOptimWrapper', loss_scale='dynamic')), None),
    '1-fast': ('1 stack, config as it is', OURS.format(1), {}, 5.15 * 6),
    '2-eager': ("2 stacks, all of the config's switches off", OURS.format(2), EAGER, 8.33 * 6),
    '2-fast': ('2 stacks, config as it is', OURS.format(2), {}, 8.33 * 6),
    '2-given-back': ('2 stacks, freed memory given back', OURS.format(2), dict(default_hooks=dict(keep_memory=dict(enable=False))), 8.33 * 6),
    '2-float32': ('2 stacks, in float32', OURS.format(2), dict(optim_wrapper=dict(dtype=None)), 8.33 * 6),
    '2-compiled': ('2 stacks, compiled', OURS.format(2), dict(compile=dict()), 8.33 * 6),
    '2-cp': ('2 stacks, with_cp', OURS.format(2), dict(model=dict(backbone=dict(with_cp=True))), 8.33 * 6),
    '8-fast': ('8 stacks, config as it is', OURS.format(8), {}, 27.44 * 6),
    '8-compiled': ('8 stacks, compiled', OURS.format(8), dict(compile=dict()), 27.44 * 6),
    '8-cp': ('8 stacks, with_cp', OURS.format(8), dict(model=dict(backbone=dict(with_cp=True))), 27.44 * 6),
}


def synthetic_batch(preprocessor: str, batch_size: int) -> dict:
    """Random pictures and keypoints, as the config's loader would hand them over."""
    images = torch.randint(0, 256, (batch_size, 3, 256, 256), dtype=torch.uint8)
    if preprocessor == 'HeatmapDataPreprocessor':
        return default_collate([
            dict(inputs=image, data_samples=dict(keypoints=torch.rand(16, 2) * 256, keypoints_visible=torch.ones(16))) for image in images
        ])
    samples = []
    for image in images:
        sample = PoseDataSample(gt_instance_labels=InstanceData(keypoint_weights=torch.ones(1, 16)), gt_fields=PixelData(heatmaps=torch.rand(16, 64, 64)))
        samples.append(dict(inputs=image, data_samples=sample))
    return pseudo_collate(samples)


def measure(args: argparse.Namespace) -> dict:
    """One network in this process: pictures/s, MB a picture, and seconds to the end of the first step."""
    _, config, changes, _ = NETWORKS[args.network]
    start = time.perf_counter()
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(changes)
    init_default_scope('mmpose')
    cuda = torch.device(args.device).type == 'cuda'
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = cfg.env_cfg.cudnn_benchmark
    for name in ('tf32', 'keep_memory'):
        if name in cfg.default_hooks:
            HOOKS.build(cfg.default_hooks[name]).before_run(None)
    model = MODELS.build(cfg.model).to(args.device).train()
    if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper' and not cuda:
        return {}
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    step = model.train_step if cfg.get('compile') is None else torch.compile(model.train_step, **cfg.compile)
    if args.data_root:
        loader = dict(cfg.train_dataloader, batch_size=args.batch, num_workers=args.workers, persistent_workers=args.workers > 0, drop_last=True)
        loader['dataset'] = dict(loader['dataset'], data_root=args.data_root)
        loader = Runner.build_dataloader(loader, seed=0)

        def endless():
            while True:
                yield from loader

        batches = endless()
    else:
        batch = synthetic_batch(cfg.model.data_preprocessor.type, args.batch)
        if cuda and torch.is_tensor(batch['inputs']):
            batch = dict(inputs=batch['inputs'].pin_memory(), data_samples={k: v.pin_memory() for k, v in batch['data_samples'].items()})

        def endless():
            while True:
                yield batch

        batches = endless()

    def wait():
        if cuda:
            torch.cuda.synchronize()

    step(next(batches), optim_wrapper=optim_wrapper)
    wait()
    first = time.perf_counter() - start
    for _ in range(args.warmup):
        step(next(batches), optim_wrapper=optim_wrapper)
    wait()
    rates = []
    for _ in range(args.rounds):
        begin = time.perf_counter()
        for _ in range(args.steps):
            losses = step(next(batches), optim_wrapper=optim_wrapper)
        wait()
        rates.append(args.batch * args.steps / (time.perf_counter() - begin))
    assert torch.isfinite(losses['loss'])
    memory = torch.cuda.max_memory_allocated() if cuda else kept_for_backward(model, optim_wrapper, next(batches))
    return dict(rate=median(rates), memory=memory / args.batch / 1e6, first=first)


def kept_for_backward(model: torch.nn.Module, optim_wrapper: OptimWrapper, batch: dict) -> int:
    """Bytes of activations that autograd keeps between forward and backward: what grows with the batch, on any device."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    data = model.data_preprocessor(batch, True)
    with optim_wrapper.optim_context(model), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = model(**data, mode='loss')
    del losses
    return sum(kept.values())


def matrix_rate(device: str, dtype: torch.dtype, threads: int) -> float:
    """TFLOP/s of a large matrix product: the floor of any network's time."""
    torch.set_num_threads(threads)
    size = 8192 if torch.device(device).type == 'cuda' else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(12):
        begin = time.perf_counter()
        a @ b
        if a.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    return 2 * size**3 / min(times) / 1e12


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, default=2 if not torch.cuda.is_available() else torch.get_num_threads(), help='of the CPU (default: %(default)s)')
    parser.add_argument('--networks', default=','.join(NETWORKS), help='default: all')
    parser.add_argument('--batch', type=int, default=32, help='pictures a step (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=20, help='steps a round (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=3, help='the median counts (default: %(default)s)')
    parser.add_argument('--warmup', type=int, default=5, help='steps before the first round (default: %(default)s)')
    parser.add_argument('--data-root', help="batches of the config's own pipeline, from this data set")
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='of the loader (default: %(default)s)')
    parser.add_argument('--network', help=argparse.SUPPRESS)
    parser.add_argument('--out', help='Markdown file for the table')
    args = parser.parse_args()
    if args.network:
        print(json.dumps(measure(args)))
        return

    cuda = torch.device(args.device).type == 'cuda'
    dtype = torch.bfloat16 if cuda or cpu_has_bfloat16() else torch.float32
    floor = matrix_rate(args.device, dtype, args.threads)
    results = {}
    for network in args.networks.split(','):
        print(f'{NETWORKS[network][0]} ...', file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as cache:  # or an earlier run's compilation would count as this one's
            process = subprocess.run([sys.executable, *sys.argv, '--network', network], stdout=subprocess.PIPE, text=True,
                                     env={**os.environ, 'TORCHINDUCTOR_CACHE_DIR': cache})
        line = process.stdout.strip().splitlines()[-1:] or ['{}']
        results[network] = json.loads(line[0]) if process.returncode == 0 else dict(failed=process.returncode)
    base = results.get('hourglass52', {}).get('rate')
    rows = [('network', 'pictures/s', 'of hourglass52', 'MB a picture', 's to the end of the first step', 'of the matrix rate')]
    for network, result in results.items():
        name, _, _, gflop = NETWORKS[network]
        if 'rate' not in result:
            rows.append((name, 'failed' if result else 'needs a GPU', '', '', '', ''))
            continue
        share = f'{result["rate"] * gflop / 1e3 / floor:.2f}' if gflop else ''
        rows.append((name, f'{result["rate"]:.1f}', f'{result["rate"] / base:.2f}' if base else '', f'{result["memory"]:.0f}', f'{result["first"]:.0f}', share))
    write_tables(
        args.out, f'{device_name(args.device)}; {args.threads} CPU threads, batch {args.batch}, '
        f'{"the pipeline on " + osp.basename(osp.normpath(args.data_root)) if args.data_root else "synthetic input"}. '
        f'Matrix rate, {str(dtype)[6:]}: {floor:.2f} TFLOP/s; the arithmetic of 2 stacks is 50 GFLOP a picture and step, which is {50 / floor:.2f} ms. '
        f'Memory is {"the most that was allocated on the GPU" if cuda else "what is kept for the backward pass"}.'
        + ('' if cuda else ' **GPU: not measured.**'), rows)


if __name__ == '__main__':
    main()
