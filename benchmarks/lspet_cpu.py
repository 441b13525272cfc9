"""The first steps of hg_2stack_lspet.py on a CPU: does the loss fall and PCKh rise on real photographs?

    python tools/train.py benchmarks/lspet_cpu.py

All 4,500 photographs are drawn from; the first 100 validation persons are scored every 40 steps.
"""
_base_ = ['../configs/hg_2stack_lspet.py']

model = dict(backbone=dict(channels_last=True))
train_dataloader = dict(batch_size=8, num_workers=1, sampler=dict(type='InfiniteSampler', shuffle=True))
val_dataloader = dict(batch_size=10, num_workers=1, dataset=dict(indices=100))
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=120, val_interval=40)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', begin=0, end=20, start_factor=0.01, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=20, end=120, T_max=100, by_epoch=False)
]
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(by_epoch=False, interval=40))
log_processor = dict(by_epoch=False, window_size=10)
randomness = dict(seed=0)
