"""A batch of 256 on LSP extended: is Adam stable at 5e-4 (MMPose's rule) and at 4e-3 (linear from 32)?

hg_plugin make_crops projects/learning/batch_size.py data/lspet_crops
python tools/train.py projects/learning/batch_size.py --data-root data/lspet_crops
"""

_base_ = ['lspet_cpu.py']

codec = dict(type='MSRAHeatmap', input_size=(96, 96), heatmap_size=(24, 24), sigma=1.5)
model = dict(
    codec=codec,
    backbone=dict(num_stacks=1, channels=64),
    test_cfg=dict(flip_test=False),
)
train_pipeline = _base_.train_pipeline
train_pipeline[1].input_size = codec['input_size']
val_pipeline = _base_.val_pipeline
val_pipeline[1].input_size = codec['input_size']
# no workers: their random numbers would differ from those of the measured run
train_dataloader = dict(
    batch_size=256, num_workers=0, persistent_workers=False, dataset=dict(pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=val_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(max_iters=60, val_interval=30)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
param_scheduler = [
    dict(type='LinearLR', begin=0, end=6, start_factor=0.01, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=6, end=60, T_max=54, by_epoch=False),
]
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=60))
