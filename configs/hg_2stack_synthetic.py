"""Two small stacks on persons that tools/make_synthetic.py draws: trains in minutes on a laptop without a GPU."""
_base_ = ['hg_2stack_mpii.py']

codec = dict(type='MSRAHeatmap', input_size=(128, 128), heatmap_size=(32, 32), sigma=2)
model = dict(
    data_preprocessor=dict(encoder=codec),
    backbone=dict(depth=3, channels=48),
    head=dict(decoder=codec),
    # the clothes that tell left from right here do not swap sides in a mirror, so nothing is mirrored
    test_cfg=dict(flip_test=False))

data_root = 'data/synthetic/'
scale_factor = (0.85, 1.15)
train_pipeline = [
    dict(type='GetBBoxCenterScale'),
    dict(type='LoadReducedImage', input_size=codec['input_size'], min_scale=scale_factor[0]),
    dict(type='RandomPersonTransform', shift_prob=0, rotate_prob=0, scale_factor=scale_factor),
    dict(type='TopdownWarp', input_size=codec['input_size']),
    dict(type='PackKeypoints')
]
val_pipeline = [
    dict(type='GetBBoxCenterScale'),
    dict(type='LoadReducedImage', input_size=codec['input_size']),
    dict(type='TopdownWarp', input_size=codec['input_size']),
    dict(type='PackPoseInputs')
]
train_dataloader = dict(batch_size=8, num_workers=1, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(batch_size=50, num_workers=1, dataset=dict(data_root=data_root, pipeline=val_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(max_epochs=5, val_interval=1)
optim_wrapper = dict(optimizer=dict(lr=1.2e-2))
param_scheduler = [
    dict(type='LinearLR', begin=0, end=50, start_factor=0.01, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=0, end=5, T_max=5, by_epoch=True, convert_to_iter_based=True)
]
auto_scale_lr = dict(base_batch_size=8)
custom_hooks = [
    dict(type='SyncBuffersHook'),
    dict(type='CollapseWarningHook'),
    dict(type='PredictionGridHook'),
]
randomness = dict(seed=0)
