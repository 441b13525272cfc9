"""A batch of 256 on LSP extended: is Adam stable at 5e-4 (MMPose's rule) and at 4e-3 (linear from 32)?

python tools/train.py benchmarks/batch_size.py --cfg-options optim_wrapper.optimizer.lr=4e-3
"""

_base_ = ['../configs/hg_2stack_lspet.py']

codec = dict(type='MSRAHeatmap', input_size=(96, 96), heatmap_size=(24, 24), sigma=1.5)
model = dict(
    data_preprocessor=dict(encoder=codec),
    backbone=dict(num_stacks=1, channels=64, depth=3),
    head=dict(num_stages=1, decoder=codec),
    test_cfg=dict(flip_test=False),
)
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
    batch_size=256,
    num_workers=1,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(batch_size=50, num_workers=1, dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=60, val_interval=30)
param_scheduler = [
    dict(type='LinearLR', begin=0, end=6, start_factor=0.01, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=6, end=60, T_max=54, by_epoch=False),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(by_epoch=False, interval=60))
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
