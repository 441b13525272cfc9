"""MPII, or any dataset in its layout."""

_base_ = ['dataloaders.py', 'hourglass.py']

# MMPose's inferencer reads these two
dataset_type = 'MPIIPoseDataset'
data_mode = 'topdown'
data_root = 'data/mpii/'
dataset = dict(type=dataset_type, data_root=data_root, data_prefix=dict(img='images/'))

train_pipeline = [
    dict(type='GetBBoxCenterScale'),
    # the paper's augmentation (Section 3.1)
    dict(
        type='TopdownCrop',
        input_size={{_base_.codec.input_size}},
        rotate_factor=30,
        scale_factor=(0.75, 1.25),
        flip_prob=0.5,
    ),
    dict(type='PackKeypoints'),
]
val_pipeline = [
    dict(type='GetBBoxCenterScale'),
    dict(type='TopdownCrop', input_size={{_base_.codec.input_size}}),
    dict(type='PackPoseInputs'),
]

train_dataloader = dict(
    dataset=dict(**dataset, ann_file='annotations/mpii_train.json', pipeline=train_pipeline)
)
val_dataloader = dict(
    dataset=dict(
        **dataset,
        ann_file='annotations/mpii_val.json',
        headbox_file='annotations/mpii_gt_val.mat',
        test_mode=True,
        pipeline=val_pipeline,
    )
)
test_dataloader = val_dataloader

val_evaluator = dict(type='MPIIPCKh')
test_evaluator = val_evaluator
