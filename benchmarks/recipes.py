"""Compare recipes in short trainings: 2 stacks of 64 channels at 128x128 on LSP extended, 11,200 images each.

    python benchmarks/recipes.py --out DIR
    python benchmarks/recipes.py --trials ours rotation-60 --seed 1 --out DIR

Trials run one after another with one thread. DIR/recipes.md is written as they go, and a trial that is in
DIR/recipes.jsonl already is not run again: after an interruption, give the same command again.
"""

import argparse
import json
import os.path as osp
import tempfile
import time
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from tables import append_raw, device_name, make_miniature, run_each, tables_text, write_whole

from hg_plugin.training.runner import load_config

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
BOX = dict(type='GetBBoxCenterScale')
CROP = dict(
    type='TopdownCrop', input_size=(128, 128), rotate_factor=30, scale_factor=(0.75, 1.25), flip_prob=0.5
)
PACK = dict(type='PackKeypoints')
LOSS, LOSS_TYPE, OPTIMIZER = 'model.head.loss', 'model.head.loss.type', 'optim_wrapper.optimizer'
PIPELINE = 'train_dataloader.dataset.pipeline'
SQUARES = {LOSS_TYPE: 'KeypointMSELoss'}
BETAS = {f'{OPTIMIZER}.betas': (0.9, 0.99)}
ADAM = {OPTIMIZER: dict(type='Adam', lr=2e-3, betas=(0.9, 0.99))}
CODEC = dict(type='MSRAHeatmap', input_size=(128, 128), heatmap_size=(32, 32), sigma=2)


def muon(rate: float, adams_rate: float = 2e-3) -> dict:
    return {OPTIMIZER: dict(type='MuonWithAuxAdam', lr=adams_rate, muon_lr=rate)}


def codec(**changes) -> dict:
    return {name: {**CODEC, **changes} for name in ('model.data_preprocessor.encoder', 'model.head.decoder')}


def batches_of(size: int, rate: float, adams_rate: float) -> dict:
    return {'train_dataloader.batch_size': size, **muon(rate, adams_rate)}


# what each changes in 'ours'
TRIALS = {
    'ours': ('SpatialCrossEntropyLoss, MuonWithAuxAdam', {}),
    'squares-adam': ('squared differences, Adam', {**SQUARES, OPTIMIZER: dict(type='Adam', lr=2e-3)}),
    'squares-adam-beta2': ('squared differences, Adam, betas 0.9, 0.99', {**SQUARES, **ADAM}),
    'squares-rmsprop': (
        "squared differences, RMSprop 2.5e-4, the paper's",
        {**SQUARES, OPTIMIZER: dict(type='RMSprop', lr=2.5e-4, alpha=0.99)},
    ),
    'squares-muon': ('squared differences, MuonWithAuxAdam', SQUARES),
    'ohkm-adam': (
        'squared differences of the 8 hardest keypoints, Adam, betas 0.9, 0.99',
        {LOSS: dict(type='KeypointOHKMMSELoss', use_target_weight=True), **ADAM},
    ),
    'wing-adam': (
        'AdaptiveWingLoss, Adam, betas 0.9, 0.99',
        {LOSS: dict(type='AdaptiveWingLoss', use_target_weight=True), **ADAM},
    ),
    'adam': ('Adam, betas 0.9, 0.99', ADAM),
    'adamw': (
        'AdamW, betas 0.9, 0.99, weight decay 0.05',
        {OPTIMIZER: dict(type='AdamW', lr=2e-3, betas=(0.9, 0.99), weight_decay=0.05)},
    ),
    'muon-0.008': ('`muon_lr` 0.008', muon(0.008)),
    'muon-0.02': ('`muon_lr` 0.02', muon(0.02)),
    'batch-8': ('batch 8, 1,400 steps, rates times 0.7', batches_of(8, 0.035, 1.4e-3)),
    'batch-32': ('batch 32, 350 steps, rates times 1.4', batches_of(32, 0.07, 2.8e-3)),
    'sigma-1.5': ('sigma 1.5', codec(sigma=1.5)),
    'sigma-3': ('sigma 3', codec(sigma=3)),
    'unbiased': ('unbiased decoding (DARK)', codec(unbiased=True)),
    'no-rotation': ('no rotation', {PIPELINE: [BOX, {**CROP, 'rotate_factor': 0}, PACK]}),
    'rotation-60': ('rotation to 60 degrees', {PIPELINE: [BOX, {**CROP, 'rotate_factor': 60}, PACK]}),
    'scale': ('scale 0.6 to 1.4', {PIPELINE: [BOX, {**CROP, 'scale_factor': (0.6, 1.4)}, PACK]}),
    'shift': ('shift to 10 % of the box', {PIPELINE: [BOX, {**CROP, 'shift_factor': 0.1}, PACK]}),
    'half-body': ('RandomHalfBody', {PIPELINE: [BOX, dict(type='RandomHalfBody'), CROP, PACK]}),
    'color': ('PhotometricDistortion', {PIPELINE: [BOX, CROP, dict(type='PhotometricDistortion'), PACK]}),
    'last-stage': ('the first stage counts a third', {'model.head.stage_weights': [1 / 3, 1.0]}),
    'average': (
        'averaged weights, momentum 0.01',
        {'custom_hooks': [dict(type='EMAHook', ema_type='ForeachEMA', momentum=0.01, gamma=50)]},
    ),
}


def trial_config(name: str, args: argparse.Namespace, work_dir: str) -> Config:
    ours = {
        'model.backbone.depth': 4,
        'model.backbone.channels': 64,
        LOSS_TYPE: 'SpatialCrossEntropyLoss',
        'custom_hooks': [],
        **muon(0.05),
    }
    cfg = load_config(osp.join(ROOT, 'benchmarks/lspet_cpu.py'), work_dir=work_dir, data_root=args.data_root)
    for key, value in {**ours, **TRIALS[name][1]}.items():
        *path, last = key.split('.')
        part = cfg
        for step in path:
            part = part[step]
        part[last] = value
    if args.miniature:
        make_miniature(cfg)
    train = cfg.train_dataloader
    for loader in (train, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False)
    steps = args.images // train.batch_size
    warmup = max(1, steps // 7)
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=10**9)
    cfg.param_scheduler = [
        dict(type='LinearLR', begin=0, end=warmup, start_factor=0.01, by_epoch=False),
        dict(type='CosineAnnealingLR', begin=warmup, end=steps, T_max=steps - warmup, by_epoch=False),
    ]
    cfg.default_hooks.checkpoint.update(interval=-1, save_best=None, save_last=False)
    cfg.randomness = dict(seed=args.seed)
    return cfg


def run(name: str, args: argparse.Namespace) -> None:
    """Trains and scores in this process, and adds the figures to DIR/recipes.jsonl."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner.from_cfg(trial_config(name, args, folder))
        runner.train()
        metrics = runner.val_loop.run()
    append_raw(
        osp.join(args.out, 'recipes.jsonl'),
        name=name,
        images=args.images,
        seed=args.seed,
        minutes=time.process_time() / 60,
        metrics=metrics,
        device=device_name('cuda' if torch.cuda.is_available() else 'cpu'),
    )


def read_results(args: argparse.Namespace) -> dict[int, dict[str, dict]]:
    """By seed and name."""
    path = Path(args.out, 'recipes.jsonl')
    results: dict[int, dict[str, dict]] = {args.seed: {}}
    for row in map(json.loads, path.read_text().splitlines() if path.exists() else []):
        if row['images'] == args.images:
            results.setdefault(row['seed'], {})[row['name']] = row
    return results


def write_table(args: argparse.Namespace) -> None:
    rows = [('trial', 'what', 'seed', 'CPU minutes', 'PCKh of the first stage', 'PCKh@0.5 Mean')]
    results = [row for of_a_seed in read_results(args).values() for row in of_a_seed.values()]
    for row in sorted(results, key=lambda row: -row['metrics']['Mean']):
        figures = row['minutes'], row['metrics']['stage0/Mean'], row['metrics']['Mean']
        what = TRIALS[row['name']][0]
        rows.append((row['name'], what, f'{row["seed"]}', *(f'{figure:.1f}' for figure in figures)))
    heading = (
        f'{args.images:,} images each, from random weights; {results[0]["device"]}. '
        "500 validation persons, with the flip test. Every trial differs from 'ours' in what is named."
    )
    if args.miniature:
        heading += ' **Networks of a few channels: a try of the command, not a measurement.**'
    write_whole(osp.join(args.out, 'recipes.md'), tables_text(heading, rows))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--trials', nargs='+', choices=TRIALS, default=list(TRIALS), metavar='NAME')
    parser.add_argument('--images', type=int, default=11_200, help='of each training (default: %(default)s)')
    parser.add_argument('--data-root', help='folder of the dataset, instead of data/lspet_mpii')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', required=True, metavar='DIR', help='folder of the results')
    parser.add_argument(
        '--miniature', action='store_true', help='networks of a few channels, to try the command'
    )
    parser.add_argument('--one', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return run(args.one, args)
    titles = {name: TRIALS[name][0] for name in args.trials}
    run_each(titles, args.out, lambda: read_results(args)[args.seed], lambda: write_table(args))


if __name__ == '__main__':
    main()
