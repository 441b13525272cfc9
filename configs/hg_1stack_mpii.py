"""One stack of the paper's second version on MPII."""

_base_ = ['hg_2stack_mpii.py']

model = dict(backbone=dict(num_stacks=1))
