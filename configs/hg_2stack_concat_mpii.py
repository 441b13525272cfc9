"""Two stacks of the paper's first version on MPII: wider, and joined by concatenation."""

_base_ = ['hg_2stack_mpii.py']

model = dict(
    backbone=dict(
        num_blocks=(3, 1),
        stem_channels=(64, 128, 128, 128, 256),
        out_channels=512,
        residual='postact',
        join='concat',
    )
)
