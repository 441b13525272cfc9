r"""Three stacks from the two of the package, or from nothing: 50 steps of 16 images of LSP extended.

    python tools/train.py projects/learning/finetune.py
    python tools/train.py projects/learning/finetune.py \
        --cfg-options load_from=hg_plugin/weights/hg_2stack_lspet_128.pth
"""

_base_ = ['../../configs/hg_2stack_lspet_128.py']

model = dict(backbone=dict(num_stacks=3))
train_dataloader = dict(num_workers=0, sampler=dict(type='SeededInfiniteSampler', shuffle=True))
val_dataloader = dict(num_workers=0)
test_dataloader = val_dataloader
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=50, val_interval=25)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', begin=0, end=20, start_factor=0.01, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=20, end=50, T_max=30, by_epoch=False),
]
default_hooks = dict(logger=dict(interval=25), checkpoint=dict(by_epoch=False, interval=50))
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
