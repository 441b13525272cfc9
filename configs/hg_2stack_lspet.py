"""Two stacks on LSP extended, photographs of sport in the MPII layout, without pelvis and thorax."""

_base_ = ['hg_2stack_mpii.py']

data_root = 'data/lspet_mpii/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader

# left out of drawings
model = dict(test_cfg=dict(unannotated_keypoints=['pelvis', 'thorax']))
