"""MMPose's schedule for its hourglass: Adam, 210 epochs, two drops."""

_base_ = ['../runtime.py']

train_cfg = dict(max_epochs=210, val_interval=5)
# dtype=None trains in float32, as GPUs and CPUs without bfloat16 instructions do anyway
optim_wrapper = dict(
    type='AutocastOptimWrapper', dtype='bfloat16', optimizer=dict(type='Adam', lr=5e-4, fused=True)
)
param_scheduler = [
    dict(type='LinearLR', begin=0, end=500, start_factor=0.001, by_epoch=False),
    dict(type='MultiStepLR', begin=0, end=210, milestones=[170, 200], gamma=0.1, by_epoch=True),
]
# MMPose's rule for its hourglass: 5e-4 for 256 images a step on all GPUs together
auto_scale_lr = dict(base_batch_size=256)
