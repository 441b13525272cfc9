"""MMPose's schedule for its hourglass: Adam, 210 epochs, two drops."""
train_cfg = dict(by_epoch=True, max_epochs=210, val_interval=5)
val_cfg = dict()
test_cfg = dict()

# dtype=None is float32, which GPUs and CPUs without instructions for bfloat16 train in anyway
optim_wrapper = dict(type='AutocastOptimWrapper', dtype='bfloat16', optimizer=dict(type='Adam', lr=5e-4, fused=True))
param_scheduler = [
    dict(type='LinearLR', begin=0, end=500, start_factor=0.001, by_epoch=False),
    dict(type='MultiStepLR', begin=0, end=210, milestones=[170, 200], gamma=0.1, by_epoch=True)
]
# for tools/train.py --auto-scale-lr: the learning rate above is for this many pictures a step on all GPUs together
auto_scale_lr = dict(base_batch_size=32)
