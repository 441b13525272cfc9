"""Two stacks on COCO's 17 keypoints and annotated boxes, with MMPose's own dataset and metric."""

_base_ = ['_base_/dataloaders.py', '_base_/hourglass.py', '_base_/schedules/adam.py']

codec = dict(type='MSRAHeatmap', input_size=(192, 256), heatmap_size=(48, 64), sigma=2)
model = dict(codec=codec, backbone=dict(num_keypoints=17))

# MMPose's inferencer reads these two
dataset_type = 'CocoDataset'
data_mode = 'topdown'
data_root = 'data/coco/'
train_pipeline = [
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomHalfBody'),
    # MMPose's augmentation for COCO
    dict(
        type='TopdownCrop',
        input_size=codec['input_size'],
        rotate_factor=80,
        rotate_prob=0.6,
        scale_factor=(0.5, 1.5),
        shift_factor=0.16,
        shift_prob=0.3,
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
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/person_keypoints_train2017.json',
        data_prefix=dict(img='train2017/'),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/person_keypoints_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=val_pipeline,
    )
)
test_dataloader = val_dataloader

# the metric takes ann_file from the dataset
val_evaluator = dict(type='CocoMetric')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='coco/AP'))
