"""Training steps: images per second, memory and time to the first step, beside MMPose's networks.

    python benchmarks/train.py --out benchmarks/train.md                      # on the GPU if there is one
    python benchmarks/train.py --data-root data/mpii_crops --workers 16       # with the real pipeline
    python benchmarks/train.py --device cpu --batch 4 --steps 3 --networks hourglass52,2-eager,2-fast

A step is MMEngine's ``train_step`` on a batch that lies on the device: normalization, targets, forward,
backward, optimizer. With ``--data-root`` the batches come out of the config's own loader instead. Networks
take turns in processes of their own, so that each one's memory and compilation are its own; beside a GPU, the
next process starts, and waits, while one measures. Table and raw figures are written with every row.
"""

import argparse
import contextlib
import gc
import json
import os
import os.path as osp
import subprocess
import sys
import tempfile
import threading
import time
from statistics import median

import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from networks import DEFAULT, NETWORKS, batches_of, network_config
from tables import MINIATURE, append_raw, device_name, tables_text, write_tables, write_whole

from hg_plugin.engine.optim_wrapper import cpu_has_bfloat16
from hg_plugin.training.runner import set_backends


def measure(cfg: Config, args: argparse.Namespace):
    """Measures one network in this process.

    Args:
        cfg: Its config.
        args: device, threads, batch (a list), steps, rounds, round_seconds, warmup, data_root and workers, as
            of the command line.

    Yields:
        For each batch size: ``batch``; ``rate``, images/s, and ``rates``, those of the rounds; ``memory``, MB
        an image, and ``resting``, MB that lay there before a step; ``first``, seconds to the end of the first
        step. Or ``batch`` and ``failed``, for want of memory.
    """
    start = time.perf_counter()
    init_default_scope('mmpose')
    cuda = torch.device(args.device).type == 'cuda'
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = cfg.env_cfg.cudnn_benchmark
    set_backends(cfg.env_cfg)
    model = MODELS.build(cfg.model).to(args.device).train()
    if cfg.optim_wrapper.get('type') == 'AmpOptimWrapper' and not cuda:
        return
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    for batch_size in args.batch:
        try:
            result = measure_batch(cfg, args, batch_size, model, optim_wrapper, start)
        except torch.cuda.OutOfMemoryError:
            result = dict(failed='out of memory')
        yield dict(batch=batch_size, **result)
        optim_wrapper.zero_grad()
        gc.collect()  # the loader's workers end
        if cuda:
            torch.cuda.empty_cache()
        start = time.perf_counter()


def measure_batch(
    cfg: Config,
    args: argparse.Namespace,
    batch_size: int,
    model: torch.nn.Module,
    optim_wrapper: OptimWrapper,
    start: float,
) -> dict:
    """What :func:`measure` yields for a batch size."""
    cuda = torch.device(args.device).type == 'cuda'
    step = model.train_step
    if cfg.get('compile') is not None:
        torch._dynamo.reset()  # or else the second batch size would be compiled for any
        step = torch.compile(step, **cfg.compile)
    batches = batches_of(cfg, args, batch_size)

    def run(steps):
        begin = time.perf_counter()
        for _ in range(steps):
            losses = step(next(batches), optim_wrapper=optim_wrapper)
        if cuda:
            torch.cuda.synchronize()
        return losses, time.perf_counter() - begin

    losses, _ = run(1)
    first = time.perf_counter() - start
    if args.warmup:
        run(args.warmup)
    resting = 0
    if cuda:  # without what cuDNN took to try its convolutions
        resting = torch.cuda.memory_allocated()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    steps, rates = args.steps, []
    if args.round_seconds:
        run(1)  # allocates anew
        _, seconds = run(1)
        steps = max(1, min(steps, int(args.round_seconds / seconds)))
    for _ in range(args.rounds):
        losses, seconds = run(steps)
        rates.append(batch_size * steps / seconds)
    assert torch.isfinite(losses['loss'])
    memory = (
        torch.cuda.max_memory_allocated() if cuda else kept_for_backward(model, optim_wrapper, next(batches))
    )
    return dict(
        rate=median(rates), rates=rates, memory=memory / batch_size / 1e6, resting=resting / 1e6, first=first
    )


def kept_for_backward(model: torch.nn.Module, optim_wrapper: OptimWrapper, batch: dict) -> int:
    """Bytes of activations that autograd keeps between forward and backward: what grows with the batch, on
    any device."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    data = model.data_preprocessor(batch, True)
    with (
        optim_wrapper.optim_context(model),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
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


class Row(contextlib.AbstractContextManager):
    """A process that measures one network: it starts and imports at once, and touches the device when told to
    go.

    Args:
        network: Its name.
        limit: Seconds from then on, after which it is killed; or None.
        cache: Folder of torch.compile's cache; None makes one that nothing is in.
    """

    def __init__(self, network: str, limit: float, cache: str):
        self.network, self.limit = network, limit
        self.own_cache = (
            None if cache else tempfile.TemporaryDirectory()
        )  # or an earlier run's compilation would count as this one's
        cache = cache or self.own_cache.name
        self.process = subprocess.Popen(
            [sys.executable, *sys.argv, '--network', network],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                'TORCHINDUCTOR_CACHE_DIR': cache,
                'TRITON_CACHE_DIR': osp.join(cache, 'triton'),
            },
        )

    def results(self):
        """Lets it go, and yields what it finds for every batch size, or last why it did not."""
        timer = threading.Timer(self.limit or 0, self.process.kill)
        if self.limit:
            timer.start()
        begin, any_result = time.perf_counter(), False
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write('go\n')
            self.process.stdin.close()
        for line in self.process.stdout:
            if line.startswith('{'):
                any_result = True
                yield json.loads(line)
        code = self.process.wait()
        timer.cancel()
        if code == -9 and self.limit and time.perf_counter() - begin >= self.limit:
            yield dict(failed=f'killed after {self.limit:.0f} s')
        elif code:
            yield dict(failed=f'exit code {code}')
        elif not any_result:
            yield dict(failed='needs a GPU')

    def __exit__(self, *error) -> None:
        self.process.kill()
        self.process.wait()
        if self.own_cache:
            self.own_cache.cleanup()


def table(results: list, floor: float) -> list:
    """Rows of the Markdown table."""
    base = {
        result['batch']: result['rate']
        for result in results
        if result['network'] == 'hourglass52' and 'rate' in result
    }
    rows = [
        (
            'network',
            'batch',
            'images/s',
            'of hourglass52',
            'MB an image',
            's to the end of the first step',
            'of the matrix rate',
        )
    ]
    for result in results:
        name, _, _, gflop = NETWORKS[result['network']]
        batch = result.get('batch')
        if 'rate' not in result:
            rows.append((name, str(batch or ''), result['failed'], '', '', '', ''))
            continue
        share = f'{result["rate"] * gflop / 1e3 / floor:.2f}' if gflop else ''
        rows.append(
            (
                name,
                str(batch),
                f'{result["rate"]:.1f}',
                f'{result["rate"] / base[batch]:.2f}' if batch in base else '',
                f'{result["memory"]:.0f}',
                f'{result["first"]:.0f}',
                share,
            )
        )
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument(
        '--threads',
        type=int,
        default=2 if not torch.cuda.is_available() else torch.get_num_threads(),
        help='of the CPU (default: %(default)s)',
    )
    parser.add_argument(
        '--networks', default=','.join(DEFAULT), help=f'of {", ".join(NETWORKS)} (default: %(default)s)'
    )
    parser.add_argument(
        '--batch', type=int, nargs='+', default=[32], help='images a step, one or several (default: 32)'
    )
    parser.add_argument('--steps', type=int, default=20, help='steps a round (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=3, help='the median counts (default: %(default)s)')
    parser.add_argument(
        '--round-seconds', type=float, help='a round has fewer steps where they would take longer'
    )
    parser.add_argument(
        '--warmup', type=int, default=5, help='steps before the first round (default: %(default)s)'
    )
    parser.add_argument('--limit', type=float, help='seconds after which a network is given up')
    parser.add_argument('--data-root', help="batches of the config's own pipeline, from this dataset")
    parser.add_argument(
        '--workers', type=int, default=os.cpu_count(), help='of the loader (default: %(default)s)'
    )
    parser.add_argument(
        '--compile-cache',
        help="folder of torch.compile's cache; every network starts with an empty one without",
    )
    parser.add_argument(
        '--miniature', action='store_true', help='networks of a few channels, to try the command'
    )
    parser.add_argument('--network', help=argparse.SUPPRESS)
    parser.add_argument('--raw', help='file that every result is added to, a line of JSON each')
    parser.add_argument('--out', help='Markdown file for the table')
    args = parser.parse_args()
    if args.network:
        sys.stdin.readline()
        for result in measure(network_config(args.network, args.miniature), args):
            print(json.dumps(result), flush=True)
        return

    cuda = torch.device(args.device).type == 'cuda'
    dtype = torch.bfloat16 if cuda or cpu_has_bfloat16() else torch.float32
    networks = args.networks.split(',')
    unknown = [network for network in networks if network not in NETWORKS]
    if unknown:
        parser.error(f'--networks: {", ".join(unknown)} is none of {", ".join(NETWORKS)}')

    def start(index):
        return (
            Row(networks[index], args.limit, args.compile_cache)
            if index < len(networks)
            else contextlib.nullcontext()
        )

    ahead = cuda or args.miniature  # on a CPU it would disturb
    results = []
    with contextlib.ExitStack() as stack:
        following = stack.enter_context(start(0))
        floor = matrix_rate(args.device, dtype, args.threads)
        append_raw(args.raw, matrix_rate=floor, dtype=str(dtype)[6:], device=device_name(args.device))
        data = osp.basename(osp.normpath(args.data_root or ''))
        heading = (
            f'{device_name(args.device)}; {args.threads} CPU threads, '
            f'{f"the pipeline on {data}" if args.data_root else "synthetic input"}. '
            f'Matrix rate, {str(dtype)[6:]}: {floor:.2f} TFLOP/s; the arithmetic of 2 stacks is 50 GFLOP an '
            f'image and step, which is {50 / floor:.2f} ms. Memory is '
            f'{"the most that was allocated on the GPU" if cuda else "what is kept for the backward pass"}.'
            + (MINIATURE if args.miniature else '')
        )
        for index, network in enumerate(networks):
            print(f'{NETWORKS[network][0]} ...', file=sys.stderr, flush=True)
            row = following
            if ahead:
                following = stack.enter_context(start(index + 1))
            for result in row.results():
                results.append(dict(network=network, **result))
                append_raw(args.raw, **results[-1])
                if args.out:
                    write_whole(args.out, tables_text(heading, table(results, floor)))
            if not ahead:
                following = stack.enter_context(start(index + 1))
    write_tables(args.out, heading, table(results, floor))


if __name__ == '__main__':
    main()
