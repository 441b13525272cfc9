"""A real training that fits a given time, start and evaluation included: learning rate in one cycle, full
pipeline, PCKh at the end.

    python benchmarks/one_cycle.py --seconds 280 --workers 16 --weights lspet.pth --out one_cycle.md
    python benchmarks/one_cycle.py CONFIG --data-root data/mpii_crops --seconds 3600

The rates of synthetic batches and of the pipeline are measured first. The learning rate follows the clock.
The weights are kept in half precision.
"""

import argparse
import math
import os
import os.path as osp
import tempfile
import time

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from tables import MINIATURE, append_raw, device_name, make_miniature, write_tables
from train import measure

from hg_plugin.engine.hooks import LazyRuntimeInfoHook
from hg_plugin.training.average import halved
from hg_plugin.training.runner import load_config

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
LARGEST_FILE = 16 * 2**20


@HOOKS.register_module()
class OneCycleByClock(Hook):
    """One cycle of the learning rate in ``seconds``, after which the training ends.

    The rate rises in a straight line to ``peak`` in the first part, ``warmup``, of the time, and falls to
    zero along a cosine. It follows the clock, not a number of iterations, so that it ends in time and at
    zero whatever else the machine does. Groups of parameters keep the ratios of their rates.

    Attributes:
        taken: Seconds of the iterations, with those that the device was still busy with at the end.
        iterations: How many there were.
    """

    def __init__(self, seconds: float, peak: float, warmup: float = 0.1):
        self.seconds = seconds
        self.peak = peak
        self.warmup = warmup

    def factor(self, share: float) -> float:
        """Learning rate, as a part of the peak, when ``share`` of the time is over."""
        if share < self.warmup:
            return share / self.warmup
        return (1 + math.cos(math.pi * min(1.0, (share - self.warmup) / (1 - self.warmup)))) / 2

    def before_train(self, runner) -> None:
        usual = runner.optim_wrapper.optimizer.defaults['lr']
        self.peaks = [self.peak * group['lr'] / usual for group in runner.optim_wrapper.param_groups]

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if batch_idx == 0:
            self.begin = time.perf_counter()
        share = (time.perf_counter() - self.begin) / self.seconds
        for group, peak in zip(runner.optim_wrapper.param_groups, self.peaks):
            group['lr'] = peak * self.factor(share)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.iterations = batch_idx + 1
        if time.perf_counter() - self.begin > self.seconds:
            runner.train_loop.stop_training = True

    def after_train_epoch(self, runner) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.taken = time.perf_counter() - self.begin


def one_cycle(cfg: Config, peak: float, seconds: float) -> None:
    """Changes a config to a training of so many seconds in one cycle, with no validation on the way."""
    never = 10**9
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=never, val_interval=never, val_begin=never)
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.param_scheduler = None
    cfg.default_hooks.checkpoint = dict(
        type='SafeCheckpointHook', by_epoch=False, interval=-1, save_last=True
    )
    cfg.log_processor.by_epoch = False
    cfg.custom_hooks = [
        *cfg.custom_hooks,
        dict(type='OneCycleByClock', seconds=seconds, peak=peak, priority='LOWEST'),
    ]
    cfg.randomness = dict(seed=0)


def save_half(model: torch.nn.Module, path: str) -> int:
    """Writes the weights in half precision, and running statistics as they are, for PoseEstimator and
    tools/test.py; returns the file's size."""
    torch.save(dict(state_dict=halved(model)), path)
    return osp.getsize(path)


def measured_rate(cfg: Config, args: argparse.Namespace, data_root, seconds: float) -> float:
    """Images a second of training steps, synthetic or from ``data_root``."""
    options = argparse.Namespace(
        device=args.device,
        threads=torch.get_num_threads(),
        batch=[cfg.train_dataloader.batch_size],
        steps=1000,
        rounds=3,
        round_seconds=seconds / 3,
        warmup=args.warmup,
        data_root=data_root,
        workers=cfg.train_dataloader.num_workers,
    )
    (result,) = measure(cfg, options)
    return result['rate']


def main():
    start = time.perf_counter()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', nargs='?', default=osp.join(ROOT, 'configs/hg_2stack_lspet.py'))
    parser.add_argument('--data-root', help="folder of the dataset, instead of the config's")
    parser.add_argument(
        '--seconds',
        type=float,
        default=280,
        help='of the whole command, but for the imports (default: %(default)s)',
    )
    parser.add_argument(
        '--train-seconds', type=float, default=240, help='of the training, at most (default: %(default)s)'
    )
    parser.add_argument(
        '--end-seconds', type=float, default=25, help='kept for evaluation and files (default: %(default)s)'
    )
    parser.add_argument(
        '--rate-seconds', type=float, default=4, help='that each rate is measured for (default: %(default)s)'
    )
    parser.add_argument(
        '--warmup', type=int, default=10, help='steps before a rate is measured (default: %(default)s)'
    )
    parser.add_argument('--batch', type=int, help="images a step, instead of the config's")
    parser.add_argument('--peak', type=float, default=1e-3, help='learning rate (default: %(default)s)')
    parser.add_argument(
        '--workers', type=int, default=os.cpu_count(), help='of the loaders (default: %(default)s)'
    )
    parser.add_argument(
        '--miniature', action='store_true', help='a network of a few channels, to try the command'
    )
    parser.add_argument('--weights', help='file for the weights')
    parser.add_argument('--raw', help='file that the figures are added to, a line of JSON each')
    parser.add_argument('--out', help='Markdown file for the table')
    args = parser.parse_args()
    args.device = 'cuda' if torch.cuda.is_available() else 'cpu'
    rows = [('figure', '')]

    def report(**figures):
        append_raw(args.raw, **figures)
        write_tables(
            args.out,
            f'{osp.basename(args.config)}, batch {cfg.train_dataloader.batch_size}, '
            f'{args.workers} loader processes; '
            f'{device_name(args.device)}.' + (MINIATURE if args.miniature else ''),
            rows,
        )

    with tempfile.TemporaryDirectory() as folder:
        cfg = load_config(args.config, work_dir=folder, data_root=args.data_root)
        if args.miniature:
            make_miniature(cfg)
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.update(num_workers=args.workers, persistent_workers=args.workers > 0)
        if args.batch:
            cfg.train_dataloader.batch_size = args.batch
        batch_size = cfg.train_dataloader.batch_size
        root = cfg.train_dataloader.dataset.data_root
        synthetic, pipeline = (
            measured_rate(cfg, args, data_root, args.rate_seconds) for data_root in (None, root)
        )
        rows += [
            ('images/s, synthetic batches', f'{synthetic:.1f}'),
            ('images/s, pipeline', f'{pipeline:.1f}'),
            ('pipeline, of the synthetic rate', f'{pipeline / synthetic:.1%}'),
        ]
        report(
            synthetic_rate=synthetic,
            pipeline_rate=pipeline,
            batch=batch_size,
            device=device_name(args.device),
        )

        seconds = min(args.seconds - args.end_seconds - (time.perf_counter() - start), args.train_seconds)
        one_cycle(cfg, args.peak, seconds)
        runner = Runner.from_cfg(cfg)
        runner.train()
        size = save_half(runner.model, args.weights) if args.weights else None
        stop = next(hook for hook in runner.hooks if isinstance(hook, OneCycleByClock))
        for hook in runner.hooks:
            if isinstance(hook, LazyRuntimeInfoHook):  # since the last log
                hook.fetch(runner)
        waits = runner.message_hub.get_scalar('train/data_time').data[0]
        rate = stop.iterations * batch_size / stop.taken
        epochs = stop.iterations * batch_size / len(runner.train_dataloader.dataset)
        # the host waits for its first batch until the workers have started
        waiting = float(waits[1:].sum()) / stop.taken
        rows += [
            ('training, s', f'{stop.taken:.1f}'),
            ('iterations', f'{stop.iterations}'),
            ('epochs', f'{epochs:.1f}'),
            ('images/s, training', f'{rate:.1f}'),
            ('training, of the synthetic rate', f'{rate / synthetic:.1%}'),
            ('share of the time that the host waited for data', f'{waiting:.1%}'),
            ('peak learning rate', f'{args.peak:g}'),
        ]
        log = {
            name: [float(value) for value in runner.message_hub.get_scalar(f'train/{name}').data[0][::50]]
            for name in ('loss', 'heatmap_peak', 'acc_pose')
        }
        report(
            train_seconds=stop.taken,
            iterations=stop.iterations,
            train_rate=rate,
            data_wait=waiting,
            every_50th=log,
        )
        if size:
            rows.append(
                (
                    'weights in half precision, MiB',
                    f'{size / 2**20:.1f}' + (', too large to bring back' if size > LARGEST_FILE else ''),
                )
            )
            report(weights_bytes=size)
        begin = time.perf_counter()
        figures = runner.val_loop.run()
        rows += [
            (f'PCKh@0.5 {name}' if '@' not in name and name != 'AUC' else f'PCKh {name}', f'{value:.2f}')
            for name, value in figures.items()
        ]
        rows.append(
            (
                f'evaluation of {len(runner.val_dataloader.dataset)} persons with flip test, s',
                f'{time.perf_counter() - begin:.1f}',
            )
        )
        report(pckh=figures)


if __name__ == '__main__':
    main()
