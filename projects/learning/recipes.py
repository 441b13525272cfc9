"""Compare recipes in short trainings: 2 stacks of 64 channels at 128x128 on LSP extended, 11,200 images each.

    python projects/learning/recipes.py --out DIR
    python projects/learning/recipes.py --only ours rotation-60 --seed 1 --out DIR

After an interruption, give the same command again: a trial that has a result in DIR is not run again.
"""

from experiment import BASE, parse_args, run
from mmengine.config import Config

from hg_plugin.training.runner import load_config

LOSS, OPTIMIZER, PIPELINE = 'model.head.loss', 'optim_wrapper.optimizer', 'train_dataloader.dataset.pipeline'
BOX, PACK = dict(type='GetBBoxCenterScale'), dict(type='PackKeypoints')
CROP = dict(
    type='TopdownCrop', input_size=(128, 128), rotate_factor=30, scale_factor=(0.75, 1.25), flip_prob=0.5
)


def loss(type: str) -> dict:
    return {LOSS: dict(_delete_=True, type=type, use_target_weight=True)}


def optimizer(type: str, **settings) -> dict:
    return {OPTIMIZER: dict(_delete_=True, type=type, **settings)}


def muon(rate: float, adams_rate: float = 2e-3) -> dict:
    return optimizer('MuonWithAuxAdam', lr=adams_rate, muon_lr=rate)


def batches_of(size: int, rate: float, adams_rate: float) -> dict:
    return {'train_dataloader.batch_size': size, **muon(rate, adams_rate)}


def crop(**changes) -> dict:
    return {PIPELINE: [BOX, {**CROP, **changes}, PACK]}


SQUARES = loss('KeypointMSELoss')
ADAM = optimizer('Adam', lr=2e-3, betas=(0.9, 0.99))
OURS = {
    'model.backbone.depth': 4,
    'model.backbone.channels': 64,
    LOSS: dict(_delete_=True, type='SpatialCrossEntropyLoss'),
    'custom_hooks': [],
    **muon(0.05),
}
# what each changes in OURS
TRIALS = {
    'ours': ('SpatialCrossEntropyLoss, MuonWithAuxAdam', {}),
    'squares-adam': ('squared differences, Adam', {**SQUARES, **optimizer('Adam', lr=2e-3)}),
    'squares-adam-beta2': ('squared differences, Adam, betas 0.9, 0.99', {**SQUARES, **ADAM}),
    'squares-rmsprop': (
        "squared differences, RMSprop 2.5e-4, the paper's",
        {**SQUARES, **optimizer('RMSprop', lr=2.5e-4, alpha=0.99)},
    ),
    'squares-muon': ('squared differences, MuonWithAuxAdam', SQUARES),
    'ohkm-adam': (
        'squared differences of the 8 hardest keypoints, Adam, betas 0.9, 0.99',
        {**loss('KeypointOHKMMSELoss'), **ADAM},
    ),
    'wing-adam': ('AdaptiveWingLoss, Adam, betas 0.9, 0.99', {**loss('AdaptiveWingLoss'), **ADAM}),
    'adam': ('Adam, betas 0.9, 0.99', ADAM),
    'adamw': (
        'AdamW, betas 0.9, 0.99, weight decay 0.05',
        optimizer('AdamW', lr=2e-3, betas=(0.9, 0.99), weight_decay=0.05),
    ),
    'muon-0.008': ('`muon_lr` 0.008', muon(0.008)),
    'muon-0.02': ('`muon_lr` 0.02', muon(0.02)),
    'batch-8': ('batch 8, 1,400 steps, rates times 0.7', batches_of(8, 0.035, 1.4e-3)),
    'batch-32': ('batch 32, 350 steps, rates times 1.4', batches_of(32, 0.07, 2.8e-3)),
    'sigma-1.5': ('sigma 1.5', {'model.codec.sigma': 1.5}),
    'sigma-3': ('sigma 3', {'model.codec.sigma': 3}),
    'unbiased': ('unbiased decoding (DARK)', {'model.codec.unbiased': True}),
    'no-rotation': ('no rotation', crop(rotate_factor=0)),
    'rotation-60': ('rotation to 60 degrees', crop(rotate_factor=60)),
    'scale': ('scale 0.6 to 1.4', crop(scale_factor=(0.6, 1.4))),
    'shift': ('shift to 10 % of the box', crop(shift_factor=0.1)),
    'half-body': ('RandomHalfBody', {PIPELINE: [BOX, dict(type='RandomHalfBody'), CROP, PACK]}),
    'color': ('PhotometricDistortion', {PIPELINE: [BOX, CROP, dict(type='PhotometricDistortion'), PACK]}),
    'last-stage': ('stage 0 counts a third', {'model.head.stage_weights': [1 / 3, 1.0]}),
    'average': (
        'averaged weights, momentum 0.01',
        {'custom_hooks': [dict(type='EMAHook', ema_type='ForeachEMA', momentum=0.01, gamma=50)]},
    ),
}
TITLES = {name: title for name, (title, _) in TRIALS.items()}


def main():
    args = parse_args(__doc__, TITLES, 'images', 11_200)

    def config(name: str, work_dir: str) -> Config:
        options = {**OURS, **TRIALS[name][1]}
        cfg = load_config(BASE, work_dir=work_dir, data_root=args.data_root, cfg_options=options)
        for loader in (cfg.train_dataloader, cfg.val_dataloader):
            loader.update(num_workers=0, persistent_workers=False)
        steps = args.budget // cfg.train_dataloader.batch_size
        warmup = max(1, steps // 7)
        cfg.train_cfg.update(max_iters=steps, val_interval=10**9)
        cfg.param_scheduler = [
            dict(type='LinearLR', begin=0, end=warmup, start_factor=0.01, by_epoch=False),
            dict(type='CosineAnnealingLR', begin=warmup, end=steps, T_max=steps - warmup, by_epoch=False),
        ]
        cfg.default_hooks.checkpoint.update(interval=-1, save_best=None, save_last=False)
        cfg.randomness = dict(seed=args.seed)
        return cfg

    run(TITLES, args, config)


if __name__ == '__main__':
    main()
