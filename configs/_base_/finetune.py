"""The network of the package on a few photographs in the layout of COCO: see hg_plugin finetune."""

_base_ = ['../hg_2stack_lspet_128.py']

train_pipeline = [
    dict(type='GetBBoxCenterScale', padding=1.1),
    dict(
        type='TopdownCrop',
        input_size=(128, 128),
        use_udp=True,
        rotate_factor=40,
        scale_factor=(0.75, 1.25),
        shift_factor=0.08,
        flip_prob=0.5,
    ),
    dict(type='PackKeypoints'),
]
dataset = dict(_delete_=True, type='CocoDataset', data_prefix=dict(img=''))
train_dataloader = dict(
    drop_last=True,  # a last batch of few images disturbs batch norm
    num_workers=2,
    dataset=dict(**dataset, ann_file='annotations/train.json', pipeline=train_pipeline),
)
val_dataloader = dict(
    num_workers=2,
    dataset=dict(**dataset, ann_file='annotations/val.json', test_mode=True, pipeline=_base_.val_pipeline),
)
test_dataloader = val_dataloader
model = dict(test_cfg=dict(unannotated_keypoints=[]))

# the share of the keypoints within a fifth of the longer side of the person's box
val_evaluator = dict(_delete_=True, type='PCKAccuracy', thr=0.2, norm_item='bbox')
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='PCK', max_keep_ckpts=1), logger=dict(interval=5))
randomness = dict(seed=0)
