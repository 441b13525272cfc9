"""hg_2stack_lspet.py for a CPU, with 128 channels at 128x128: do loss and PCKh move on photographs?

    python tools/train.py projects/learning/lspet_cpu.py

3,000 steps of 16 persons are 11 epochs; the 500 validation persons are scored every 500 steps.
"""

_base_ = ['../../configs/hg_2stack_lspet.py']

codec = dict(type='MSRAHeatmap', input_size=(128, 128), heatmap_size=(32, 32), sigma=2)
model = dict(codec=codec, backbone=dict(depth=3, channels=128))
train_pipeline = [
    dict(type='GetBBoxCenterScale'),
    dict(
        type='TopdownCrop',
        input_size=codec['input_size'],
        rotate_factor=30,
        scale_factor=(0.75, 1.25),
        flip_prob=0.5,
    ),
    dict(type='PackKeypoints'),
]
val_pipeline = [
    dict(type='GetBBoxCenterScale'),
    dict(type='TopdownCrop', input_size=codec['input_size']),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(batch_size=50, num_workers=1, dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=3000, val_interval=500)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', begin=0, end=100, start_factor=0.01, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=100, end=3000, T_max=2900, by_epoch=False),
]
default_hooks = dict(logger=dict(interval=50), checkpoint=dict(by_epoch=False, interval=500))
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
