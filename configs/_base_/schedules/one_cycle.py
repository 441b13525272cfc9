"""Muon in one cycle: a warm-up and a cosine. What docs/recipe.md found to learn most in a short time."""

_base_ = ['../runtime.py']

train_cfg = dict(max_epochs=100, val_interval=5)
optim_wrapper = dict(
    type='AutocastOptimWrapper',
    dtype='bfloat16',
    optimizer=dict(type='MuonWithAuxAdam', lr=2e-3, muon_lr=0.04, fused=True),
)
param_scheduler = [
    dict(type='LinearLR', begin=0, end=200, start_factor=0.01, by_epoch=False),
    dict(type='CosineAnnealingLR', begin=0, end=100, T_max=100, by_epoch=True, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=16)
