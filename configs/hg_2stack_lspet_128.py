"""Two stacks of 144 channels at 128x128 on LSP extended: the network that the package carries."""

_base_ = ['hg_2stack_mpii_cross_entropy.py']

codec = dict(type='UDPHeatmap', input_size=(128, 128), heatmap_size=(32, 32), sigma=2)
model = dict(
    codec=codec,
    backbone=dict(channels=144),
    test_cfg=dict(shift_heatmap=False, unannotated_keypoints=['pelvis', 'thorax']),
)

data_root = 'data/lspet_mpii/'
# the boxes of this dataset are a tenth longer than the persons: with 1.1, persons fill 83 % of the input
train_pipeline = [
    dict(type='GetBBoxCenterScale', padding=1.1),
    # so that scores tell people from what is none
    dict(type='RandomNegative', prob=0.2),
    dict(
        type='TopdownCrop',
        input_size=codec['input_size'],
        use_udp=True,
        rotate_factor=60,
        scale_factor=(0.65, 1.35),
        shift_factor=0.08,
        flip_prob=0.5,
    ),
    dict(type='RandomApply', transforms=[dict(type='PhotometricDistortion')], prob=0.3),
    dict(type='RandomOcclusion', prob=0.4),
    dict(type='PackKeypoints'),
]
val_pipeline = [
    dict(type='GetBBoxCenterScale', padding=1.1),
    dict(type='TopdownCrop', input_size=codec['input_size'], use_udp=True),
    dict(type='PackPoseInputs'),
]
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[
            dict(
                type='MPIIPoseDataset',
                data_root=data_root,
                ann_file=f'annotations/{part}.json',
                data_prefix=dict(img='images/'),
                pipeline=train_pipeline,
            )
            for part in ('mpii_train', 'mpii_train_more')
        ],
    )
)
val_dataloader = dict(batch_size=50, dataset=dict(data_root=data_root, pipeline=val_pipeline))
test_dataloader = val_dataloader
