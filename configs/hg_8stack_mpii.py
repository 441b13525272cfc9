"""Eight stacks, the paper's network (second version), on MPII."""

_base_ = ['hg_2stack_mpii.py']

model = dict(backbone=dict(num_stacks=8))
