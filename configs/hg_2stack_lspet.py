"""Two stacks on LSP extended, real photographs of sport, in MPII layout; 14 of the 16 joints are annotated."""
_base_ = ['hg_2stack_mpii.py']

data_root = 'data/lspet_mpii/'
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
