"""Two stacks on MPII with the paper's schedule."""

_base_ = ['_base_/mpii.py', '_base_/schedules/paper_rmsprop.py']

train_dataloader = dict(batch_size=6)
