"""Samples per second and core of the training pipelines, by transform, and the time from batch to losses.

    python benchmarks/data.py --data-root data/mpii
    python benchmarks/data.py --data-root data/mpii_sample --annotations data/mpii_annotations/mpii_train.json

MMPose's hourglass52 config with its own dataset, and configs/hg_2stack_mpii.py on full images, JPEG crops and
lossless crops take turns in one process with one thread, whose CPU time counts. Images come from the disk
cache. Freed memory stays with the process for all of them, as in training with the plugin's configs.

With a few images, ``--annotations`` shows what a dataset of many persons costs: full images take these
annotations, on the images at hand; crops are repeated as often as there are persons.
"""

import argparse
import contextlib
import io
import itertools
import json
import os
import os.path as osp
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

os.environ['OMP_NUM_THREADS'] = '1'

import cv2
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, FUNCTIONS, MODELS, init_default_scope
from networks import MMPOSE, ROOT
from tables import device_name, write_tables
from torch import nn

import hg_plugin  # noqa: F401
from hg_plugin.compat.glibc import keep_freed_memory
from hg_plugin.prepare.crops import make_crops

OURS = osp.join(ROOT, 'configs/hg_2stack_mpii.py')


class Pipeline:
    """A config's training samples, with the time of each stage in ms per sample."""

    def __init__(self, config: str, data_root: str, ann_file: str):
        cfg = Config.fromfile(config)
        self.dataset = DATASETS.build(
            {**cfg.train_dataloader.dataset, 'data_root': data_root, 'ann_file': ann_file}
        )
        self.stages = defaultdict(float)
        self.dataset.pipeline.transforms = [
            self.timed(type(transform).__name__, transform) for transform in self.dataset.pipeline.transforms
        ]
        collate = cfg.train_dataloader.get('collate_fn', dict(type='pseudo_collate'))
        self.collate = self.timed('collate', FUNCTIONS.get(collate['type']))
        model = MODELS.build(cfg.model)
        self.preprocessor, self.head = model.data_preprocessor, model.head
        # hourglass52's final layers belong to the network
        self.head.multi_final_layers = nn.ModuleList(nn.Identity() for _ in range(self.head.num_stages))
        self.order = itertools.cycle(torch.randperm(len(self.dataset)).tolist())

    def timed(self, stage: str, function):
        def run(*arguments):
            start = time.process_time()
            result = function(*arguments)
            self.stages[stage] += time.process_time() - start
            return result

        return run

    def batch(self, size: int) -> tuple:
        """A batch of ``size`` samples, and {stage: ms per sample}."""
        self.stages.clear()
        start = time.process_time()
        batch = self.collate([self.dataset[index] for index in itertools.islice(self.order, size)])
        whole = time.process_time() - start
        stages = {'dataset': whole - sum(self.stages.values()), **self.stages}
        return batch, {stage: seconds / size * 1e3 for stage, seconds in stages.items()}

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


def with_all_persons(
    data_root: str, ann_file: str, annotations: str | None, folder: str, repeat=False
) -> str:
    """Path of a file with as many persons as ``annotations`` has, on the images of ``data_root``.

    Args:
        data_root: Folder of the dataset.
        ann_file: Its annotation file.
        annotations: Path of the other file. None gives ``ann_file``.
        folder: Where the new file is written.
        repeat: Repeat the persons of ``ann_file``, instead of placing those of ``annotations`` on its images.
    """
    if annotations is None:
        return ann_file
    persons = json.loads(Path(annotations).read_text())
    few = json.loads(Path(data_root, ann_file).read_text())
    for index, (person, own) in enumerate(zip(persons, itertools.cycle(few))):
        persons[index] = own if repeat else {**person, 'image': own['image']}
    path = Path(tempfile.mkstemp('.json', dir=folder)[1])
    path.write_text(json.dumps(persons))
    return str(path)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--data-root', default='data/mpii', help='MPII, or a dataset in its layout (default: %(default)s)'
    )
    parser.add_argument('--ann-file', default='annotations/mpii_train.json', help='default: %(default)s')
    parser.add_argument(
        '--annotations', help='annotation file of many persons, for a dataset of that size; see above'
    )
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
            name: Pipeline(
                config, root, with_all_persons(root, args.ann_file, args.annotations, crops, repeat)
            )
            for name, config, root, repeat in (
                ("MMPose's", MMPOSE['hourglass52'][1], args.data_root, False),
                ('ours, full images', OURS, args.data_root, False),
                ('ours, crops', OURS, crops, True),
                ('ours, lossless crops', OURS, lossless, True),
            )
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
    dataset, persons = osp.basename(osp.normpath(args.data_root)), len(pipelines['ours, crops'].dataset)
    write_tables(
        args.out,
        f'{device_name("cpu")}, one thread, CPU time; {persons:,} persons on the images of {dataset}, '
        f'medians of {args.rounds} rounds of {args.persons} samples',
        summary,
        lines,
    )


if __name__ == '__main__':
    main()
