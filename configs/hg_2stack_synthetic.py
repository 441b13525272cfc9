"""Two small stacks on persons drawn by hg_plugin make_synthetic; trains in a minute without a GPU."""

_base_ = ['hg_2stack_mpii_cross_entropy.py']

codec = dict(type='MSRAHeatmap', input_size=(128, 128), heatmap_size=(32, 32), sigma=1)
model = dict(
    codec=codec,
    backbone=dict(depth=3, channels=48),
    # left and right differ by clothes that do not swap in a flipped image, so nothing is flipped
    test_cfg=dict(flip_test=False),
)

data_root = 'data/synthetic/'
train_pipeline = [
    dict(type='GetBBoxCenterScale'),
    dict(type='TopdownCrop', input_size=codec['input_size'], scale_factor=(0.85, 1.15)),
    dict(type='PackKeypoints'),
]
val_pipeline = [
    dict(type='GetBBoxCenterScale'),
    dict(type='TopdownCrop', input_size=codec['input_size']),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(
    batch_size=8, num_workers=1, dataset=dict(data_root=data_root, pipeline=train_pipeline)
)
val_dataloader = dict(batch_size=50, num_workers=1, dataset=dict(data_root=data_root, pipeline=val_pipeline))
test_dataloader = val_dataloader

train_cfg = dict(max_epochs=2, val_interval=1)
optim_wrapper = dict(optimizer=dict(lr=0.01, muon_lr=0.08))
param_scheduler = [
    dict(type='LinearLR', begin=0, end=50, start_factor=0.01, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=0, end=2, T_max=2, by_epoch=True, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=8)
custom_hooks = [dict(type='SyncBuffersHook'), dict(type='StageHeatmapHook', test_persons=24)]
randomness = dict(seed=0)
