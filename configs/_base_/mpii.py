"""MPII, or any data set in its layout: tools/train.py's --data-root points all three loaders elsewhere."""
_base_ = ['hourglass.py']

# MMPose's inferencer reads these two
dataset_type = 'MPIIPoseDataset'
data_mode = 'topdown'
data_root = 'data/mpii/'
dataset = dict(type=dataset_type, data_root=data_root, data_prefix=dict(img='images/'))

# The paper's augmentation (Section 3.1): rotation of +-30 degrees, scaling of 0.75 to 1.25, and mirroring.
scale_factor = (0.75, 1.25)
train_pipeline = [
    dict(type='GetBBoxCenterScale'),
    dict(type='LoadReducedImage', input_size={{_base_.codec.input_size}}, min_scale=scale_factor[0]),
    dict(type='RandomPersonTransform', shift_prob=0, rotate_factor=30, rotate_prob=1, scale_factor=scale_factor),
    dict(type='RandomMirror'),
    dict(type='TopdownWarp', input_size={{_base_.codec.input_size}}),
    dict(type='PackKeypoints')
]
val_pipeline = [
    dict(type='GetBBoxCenterScale'),
    dict(type='LoadReducedImage', input_size={{_base_.codec.input_size}}),
    dict(type='TopdownWarp', input_size={{_base_.codec.input_size}}),
    dict(type='PackPoseInputs')
]

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(**dataset, ann_file='annotations/mpii_train.json', pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        **dataset,
        ann_file='annotations/mpii_val.json',
        headbox_file='annotations/mpii_gt_val.mat',
        test_mode=True,
        pipeline=val_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(type='MPIIPCKh')
test_evaluator = val_evaluator
