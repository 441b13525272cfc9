"""Samples per second and core of the training pipelines, by transform, and the time from batch to losses.

    python benchmarks/data.py --data-root data/mpii

MMPose's hourglass52 config with its own dataset, and configs/hg_2stack_mpii.py on full images, JPEG crops and
lossless crops take turns in one process with one thread, whose CPU time counts. Images come from the disk
cache. Freed memory stays with the process for all of them, as in training with the plugin's configs.
"""

import argparse
import contextlib
import io
import os
import os.path as osp
import tempfile
import time
from collections import defaultdict
from statistics import median

os.environ['OMP_NUM_THREADS'] = '1'

import cv2
import mmpose
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, FUNCTIONS, MODELS, TRANSFORMS, init_default_scope
from tables import device_name, write_tables
from torch import nn

import hg_plugin  # noqa: F401
from hg_plugin.engine.hooks import keep_freed_memory
from hg_plugin.prepare.crops import make_crops

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
STOCK = osp.join(
    osp.dirname(mmpose.__file__),
    '.mim/configs/body_2d_keypoint/topdown_heatmap/mpii/td-hm_hourglass52_8xb64-210e_mpii-256x256.py',
)
OURS = osp.join(ROOT, 'configs/hg_2stack_mpii.py')


class Pipeline:
    """A config's training samples, with the time of each stage in ms per sample."""

    def __init__(self, config: str, data_root: str, ann_file: str):
        cfg = Config.fromfile(config)
        dataset = {**cfg.train_dataloader.dataset, 'data_root': data_root, 'ann_file': ann_file}
        self.transforms = [TRANSFORMS.build(transform) for transform in dataset['pipeline']]
        self.dataset = DATASETS.build({**dataset, 'pipeline': []})
        self.collate = FUNCTIONS.get(
            cfg.train_dataloader.get('collate_fn', dict(type='pseudo_collate'))['type']
        )
        self.preprocessor = MODELS.build(cfg.model.data_preprocessor)
        self.head = MODELS.build(cfg.model.head)
        # hourglass52's final layers belong to the network
        self.head.multi_final_layers = nn.ModuleList(nn.Identity() for _ in range(self.head.num_stages))
        self.batch_size = cfg.train_dataloader.batch_size
        self.index = 0

    def batch(self, size: int) -> tuple:
        """A batch of ``size`` samples, and {stage: ms per sample}."""
        stages = defaultdict(float)

        def timed(stage, function, *arguments):
            start = time.process_time()
            result = function(*arguments)
            stages[stage] += (time.process_time() - start) / size * 1e3
            return result

        samples = []
        for _ in range(size):
            sample = timed('item of the dataset', self.dataset.get_data_info, self.index % len(self.dataset))
            for transform in self.transforms:
                sample = timed(type(transform).__name__, transform, sample)
            samples.append(sample)
            self.index += 1
        return timed('collate', self.collate, samples), stages

    def to_losses(self, data: dict) -> dict:
        """{stage: ms per batch} of normalizing, targets, losses and accuracy."""
        start = time.process_time()
        data = self.preprocessor(data, True)
        middle = time.process_time()
        shape = len(data['inputs']), self.head.out_channels, 64, 64
        heatmaps = [torch.rand(shape) for _ in range(self.head.num_stages)]
        before_loss = time.process_time()
        self.head.loss(heatmaps, data['data_samples'])
        end = time.process_time()
        return {'preprocessor': (middle - start) * 1e3, 'losses and accuracy': (end - before_loss) * 1e3}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--data-root', default='data/mpii', help='MPII, or a dataset in its layout (default: %(default)s)'
    )
    parser.add_argument('--ann-file', default='annotations/mpii_train.json', help='default: %(default)s')
    parser.add_argument(
        '--persons', type=int, default=50, help='samples a pipeline and round (default: %(default)s)'
    )
    parser.add_argument('--rounds', type=int, default=7, help='default: %(default)s')
    parser.add_argument('--batch', type=int, default=64, help='of the second table (default: %(default)s)')
    parser.add_argument('--out', help='Markdown file for the tables')
    args = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    keep_freed_memory()
    init_default_scope('mmpose')
    with tempfile.TemporaryDirectory() as crops, tempfile.TemporaryDirectory() as lossless:
        cfg = Config.fromfile(OURS)
        for loader in ('train_dataloader', 'val_dataloader'):
            cfg[loader].dataset.data_root = args.data_root
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            make_crops(cfg, crops)
            make_crops(cfg, lossless, lossless=True)
        pipelines = {
            "MMPose's": Pipeline(STOCK, args.data_root, args.ann_file),
            'ours, full images': Pipeline(OURS, args.data_root, args.ann_file),
            'ours, crops': Pipeline(OURS, crops, args.ann_file),
            'ours, lossless crops': Pipeline(OURS, lossless, args.ann_file),
        }
        rounds = {name: [] for name in pipelines}
        batches = {name: [] for name in pipelines}
        for turn in range(args.rounds + 1):
            for name, pipeline in pipelines.items():
                stages = pipeline.batch(args.persons)[1]
                data = pipeline.batch(args.batch)[0]
                batch = pipeline.to_losses(data)
                if turn:  # the first warms up
                    rounds[name].append(stages)
                    batches[name].append(batch)

    stock = median(sum(stages.values()) for stages in rounds["MMPose's"])
    lines = [('pipeline', 'stage', 'ms per sample')]
    summary = [
        ('pipeline', 'samples/s per core', "of MMPose's", f'to the losses, ms per batch of {args.batch}')
    ]
    for name, measured in rounds.items():
        for stage in measured[0]:
            lines.append((name, stage, f'{median(stages[stage] for stages in measured):.2f}'))
        total = median(sum(stages.values()) for stages in measured)
        lines.append((name, '**all**', f'**{total:.2f}**'))
        parts = ' + '.join(
            f'{median(batch[part] for batch in batches[name]):.0f} {part}' for part in batches[name][0]
        )
        summary.append((name, f'{1e3 / total:.0f}', f'{stock / total:.1f}', parts))
    dataset = osp.basename(osp.normpath(args.data_root))
    write_tables(
        args.out,
        f'{device_name("cpu")}, one thread, CPU time;\n{len(pipelines["ours, crops"].dataset)} persons '
        f'of {dataset}, medians of {args.rounds} rounds of {args.persons} samples',
        summary,
        lines,
    )


if __name__ == '__main__':
    main()
