"""Two stacks on COCO's 17 keypoints, with MMPose's own data set and metric; persons are the annotated boxes."""
_base_ = ['_base_/runtime.py', '_base_/schedule.py', '_base_/hourglass.py']

codec = dict(type='MSRAHeatmap', input_size=(192, 256), heatmap_size=(48, 64), sigma=2)
model = dict(
    data_preprocessor=dict(encoder=codec), backbone=dict(num_keypoints=17), head=dict(out_channels=17, decoder=codec))

# MMPose's inferencer reads these two
dataset_type = 'CocoDataset'
data_mode = 'topdown'
data_root = 'data/coco/'
train_pipeline = [
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomHalfBody'),
    # RandomPersonTransform scales by 0.5 to 1.5 unless it is told otherwise
    dict(type='LoadReducedImage', input_size=codec['input_size'], min_scale=0.5),
    dict(type='RandomPersonTransform'),
    dict(type='RandomMirror'),
    dict(type='TopdownWarp', input_size=codec['input_size']),
    dict(type='PackKeypoints')
]
val_pipeline = [
    dict(type='GetBBoxCenterScale'),
    dict(type='LoadReducedImage', input_size=codec['input_size']),
    dict(type='TopdownWarp', input_size=codec['input_size']),
    dict(type='PackPoseInputs')
]
train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    collate_fn=dict(type='default_collate'),
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/person_keypoints_train2017.json',
        data_prefix=dict(img='train2017/'),
        pipeline=train_pipeline))
val_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/person_keypoints_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=val_pipeline))
test_dataloader = val_dataloader

# ann_file is not set: the metric takes it from the data set, so that --data-root moves both
val_evaluator = dict(type='CocoMetric')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='coco/AP'))
