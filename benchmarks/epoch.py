"""Where the time of an epoch goes: one real epoch through tools/train.py, with validation.

    python benchmarks/epoch.py --out benchmarks/epoch.md           # hg_2stack_lspet.py in data/lspet_mpii
    python benchmarks/epoch.py --persons 320 --val-persons 64      # a part of it, on a CPU
    python benchmarks/epoch.py configs/hg_2stack_mpii.py --data-root data/mpii_crops

The GPU is waited for at the end of every part, so that each one's time is its own; this costs the overlap of
host and GPU.
"""

import argparse
import contextlib
import functools
import os.path as osp
import runpy
import sys
import tempfile
import time
from collections import defaultdict

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, Runner, ValLoop
from tables import MINIATURE, append_raw, device_name, make_miniature, write_tables
from torch.utils.data.dataloader import _BaseDataLoaderIter

import hg_plugin

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
# part: the methods whose time it is
PARTS = {
    'waiting for data': [(_BaseDataLoaderIter, '__next__')],
    'normalization and targets': [(hg_plugin.models.HeatmapDataPreprocessor, 'forward')],
    'forward': [(BaseModel, '_run_forward')],
    'backward': [(OptimWrapper, 'backward')],
    'optimizer': [(OptimWrapper, 'step'), (OptimWrapper, 'zero_grad')],
    'hooks': [(Runner, 'call_hook')],
    'validation': [(ValLoop, 'run')],
    'rest of the loop': [(EpochBasedTrainLoop, 'run')],
}


class Stopwatch:
    """Seconds of each part without those within it; all of a validation is validation."""

    def __init__(self):
        self.seconds = defaultdict(float)
        self.running = []

    def switch(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.running:
            self.seconds[self.running[-1]] += now - self.since
        self.since = now

    @contextlib.contextmanager
    def part(self, name: str):
        if 'validation' in self.running:
            yield
            return
        self.switch()
        self.running.append(name)
        try:
            yield
        finally:
            self.switch()
            self.running.pop()

    def watch(self, name: str, owner: type, method: str) -> None:
        function = getattr(owner, method)

        @functools.wraps(function)
        def timed(*args, **kwargs):
            with self.part(name):
                return function(*args, **kwargs)

        setattr(owner, method, timed)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', nargs='?', default=osp.join(ROOT, 'configs/hg_2stack_lspet.py'))
    parser.add_argument('--data-root', help="folder of the dataset, instead of the config's")
    parser.add_argument('--persons', type=int, help='train on so many, instead of a whole epoch')
    parser.add_argument('--val-persons', type=int, help='validate on so many, instead of all')
    parser.add_argument('--workers', type=int, help="of the loaders, instead of the config's")
    parser.add_argument(
        '--miniature', action='store_true', help='a network of a few channels, to try the command'
    )
    parser.add_argument('--raw', help='file that the figures are added to, a line of JSON')
    parser.add_argument('--out', help='Markdown file for the table')
    args = parser.parse_args()
    cfg = Config.fromfile(args.config)
    if args.miniature:
        make_miniature(cfg)
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    for loader, persons in dict(train_dataloader=args.persons, val_dataloader=args.val_persons).items():
        cfg[loader].dataset.indices = persons
        if args.workers is not None:
            cfg[loader].update(num_workers=args.workers, persistent_workers=args.workers > 0)
    stopwatch = Stopwatch()
    for name, methods in PARTS.items():
        for owner, method in methods:
            stopwatch.watch(name, owner, method)
    with tempfile.TemporaryDirectory() as folder:
        cfg.dump(osp.join(folder, 'config.py'))
        arguments, sys.argv = (
            sys.argv,
            ['tools/train.py', osp.join(folder, 'config.py'), '--work-dir', folder],
        )
        if args.data_root:
            sys.argv += ['--data-root', args.data_root]
        runpy.run_path(osp.join(ROOT, 'tools/train.py'), run_name='__main__')
        sys.argv = arguments
    total = sum(stopwatch.seconds.values())
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    append_raw(
        args.raw,
        device=device_name(device),
        workers=cfg.train_dataloader.num_workers,
        seconds={name: stopwatch.seconds[name] for name in PARTS},
    )
    rows = [('part', 'seconds', 'share')]
    rows += [
        (name, f'{stopwatch.seconds[name]:.1f}', f'{stopwatch.seconds[name] / total:.1%}') for name in PARTS
    ]
    rows += [('**all**', f'{total:.1f}', '')]
    write_tables(
        args.out,
        f'{osp.basename(args.config)}, {args.persons or "all"} persons in batches of '
        f'{cfg.train_dataloader.batch_size}, {args.val_persons or "all"} to validate; {device_name(device)}, '
        f'{torch.get_num_threads()} CPU threads, {cfg.train_dataloader.num_workers} loader processes.'
        + (MINIATURE if args.miniature else ''),
        rows,
    )


if __name__ == '__main__':
    main()
