"""Compare recipes in short trainings: 2 stacks of 64 channels at 128x128 on LSP extended, 700 steps of 16.

    python tools/train.py benchmarks/recipe.py --cfg-options KEY=VALUE ...

docs/recipe.md has the options of its rows.
"""

_base_ = ['lspet_cpu.py']

model = dict(backbone=dict(depth=4, channels=64))
train_cfg = dict(max_iters=700, val_interval=700)
param_scheduler = [
    dict(type='LinearLR', begin=0, end=100, start_factor=0.01, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=100, end=700, T_max=600, by_epoch=False),
]
default_hooks = dict(checkpoint=dict(interval=700))
