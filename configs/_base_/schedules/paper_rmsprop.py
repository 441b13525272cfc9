"""The paper's schedule (Section 3.1): RMSprop at 2.5e-4, divided by five once, when PCKh plateaus."""

_base_ = ['../runtime.py']

# the paper names no number of epochs: three days on a GPU of 2016; its code goes on until it is stopped
train_cfg = dict(max_epochs=100, val_interval=1)
optim_wrapper = dict(
    type='AutocastOptimWrapper', dtype='bfloat16', optimizer=dict(type='RMSprop', lr=2.5e-4, alpha=0.99)
)
param_scheduler = [
    dict(type='ReduceOnPlateauLR', monitor='Mean', rule='greater', factor=0.2, patience=5, min_value=5e-5)
]
# images a step in the authors' training code; set train_dataloader.batch_size, too
auto_scale_lr = dict(base_batch_size=6)
