"""Where the time of a training step goes, on the host and on the GPU, in four ways to launch it.

    python benchmarks/step_profile.py --batch 32 --out DIR/profile.md

Two stacks on synthetic input. A step is timed without a profiler, and then by part with torch's, whose trace
is written beside the table, for chrome://tracing or perfetto.dev. Where py-spy is installed, it writes a
flame graph of the host, too. A backward pass launches from a thread of its own: its time on the GPU is what
is left. Compiled, the preprocessor and the losses count for the network.
"""

import argparse
import os
import shutil
import subprocess
import time

import torch
from launches import watch_parts
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from networks import batches_of, network_config
from tables import append_raw, device_name, tables_text, write_tables, write_whole
from torch.profiler import ProfilerActivity, profile, record_function

from hg_plugin.engine import bfloat16_weights
from hg_plugin.engine.cuda_graph import GraphedStep
from hg_plugin.training.runner import set_backends

# title by name, the quickest to be ready first
WAYS = dict(
    casts='eager, autocast casts weights one by one',
    together='eager, weights cast together: the config as it is',
    graph='one CUDA graph',
    compiled='compiled',
)


PARTS = ('preprocessor', 'losses', 'backward', 'optimizer')


def build(way: str, args: argparse.Namespace):
    """What trains on one batch, with its parts named for the profiler."""
    cfg = network_config('2-compiled' if way == 'compiled' else '2-fast', args.miniature)
    torch.backends.cudnn.benchmark = cfg.env_cfg.cudnn_benchmark
    set_backends(cfg.env_cfg)
    model = MODELS.build(cfg.model).to(args.device).train()
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    watch_parts(model, optim_wrapper, record_function)
    step, batches = model.train_step, batches_of(cfg, args, args.batch)
    if way == 'compiled':
        step = torch.compile(step, **cfg.compile)
    elif way == 'graph':
        step = GraphedStep(step, optim_wrapper)
    return lambda: step(next(batches), optim_wrapper=optim_wrapper)


def run(step, steps: int) -> dict:
    """Milliseconds of a step, and those until the host has launched it."""
    begin = time.perf_counter()
    for _ in range(steps):
        with record_function('step'):
            step()
    launched = time.perf_counter()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    end = time.perf_counter()
    return dict(step=1e3 * (end - begin) / steps, launched=1e3 * (launched - begin) / steps)


def by_part(profiler: profile, steps: int) -> dict:
    """Milliseconds of a step by part, on the host and on the device."""
    events = {event.key: event for event in profiler.key_averages()}
    host = {key: getattr(events.get(key), 'cpu_time_total', 0.0) for key in ('step', *PARTS)}
    device = {key: getattr(events.get(key), 'device_time_total', 0.0) for key in ('step', *PARTS)}
    kernels = sum(getattr(event, 'self_device_time_total', 0.0) for event in events.values())
    device['backward'], device['step'] = kernels - device['step'], kernels
    for times in (host, device):
        times['network'] = times.pop('step') - sum(times[part] for part in PARTS)
    return {
        place: {part: round(time / 1e3 / steps, 3) for part, time in times.items()}
        for place, times in (('host', host), ('device', device))
    }


def measure(way: str, args: argparse.Namespace) -> dict:
    """Times one way, and writes its trace and flame graph beside the table."""
    casts = bfloat16_weights.LAYERS
    if way == 'casts':
        bfloat16_weights.LAYERS = ()
    begin = time.perf_counter()
    step = build(way, args)
    for _ in range(args.warmup):
        step()
    ready = time.perf_counter() - begin
    result = dict(way=way, ready=ready, **run(step, args.steps))
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities) as profiler:
        run(step, args.steps)
    result.update(by_part(profiler, args.steps))
    if args.out:
        profiler.export_chrome_trace(f'{args.out}.{way}.json.gz')
        if shutil.which('py-spy'):
            options = ['--pid', str(os.getpid()), '--duration', '3', '--output', f'{args.out}.{way}.svg']
            with subprocess.Popen(['py-spy', 'record', '--nonblocking', *options]) as spy:
                while spy.poll() is None:
                    step()
    bfloat16_weights.LAYERS = casts
    return result


def table(results: list[dict]) -> list:
    parts = ('preprocessor', 'network', *PARTS[1:])
    rows = [('way', 'ms a step', 'host is done after', 's to the first steps')]
    rows[0] += tuple(f'{place}: {part}' for place in ('host', 'GPU') for part in parts)
    for result in results:
        times = [result['step'], result['launched'], result['ready']]
        times += [result[place][part] for place in ('host', 'device') for part in parts]
        rows.append((WAYS[result['way']], *(f'{each:.2f}' for each in times)))
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='of the CPU')
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=list(WAYS))
    parser.add_argument('--batch', type=int, default=32, help='images a step (default: %(default)s)')
    parser.add_argument('--steps', type=int, default=20, help='that are measured (default: %(default)s)')
    parser.add_argument('--warmup', type=int, default=13, help='steps before (default: %(default)s)')
    parser.add_argument('--miniature', action='store_true', help='a network of a few channels, to try')
    parser.add_argument('--raw', help='file that every result is added to, a line of JSON each')
    parser.add_argument('--out', help='Markdown file for the table, beside which traces are written')
    args = parser.parse_args()
    args.data_root = None
    init_default_scope('mmpose')
    torch.set_num_threads(args.threads)
    heading = f'{device_name(args.device)}; {args.steps} steps of {args.batch} images; milliseconds a step.'
    if not torch.cuda.is_available():
        heading += ' **GPU: not measured.** What would be captured as a CUDA graph was called.'
    results = []
    for way in args.ways:
        print(f'{WAYS[way]} ...', flush=True)
        results.append(measure(way, args))
        append_raw(args.raw, **results[-1])
        if args.out:
            write_whole(args.out, tables_text(heading, table(results)))
    write_tables(args.out, heading, table(results))


if __name__ == '__main__':
    main()
