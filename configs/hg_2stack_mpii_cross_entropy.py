"""Two stacks on MPII with the loss and schedule that learn most in a short time: docs/recipe.md."""

_base_ = ['_base_/mpii.py', '_base_/schedules/one_cycle.py']

model = dict(head=dict(loss=dict(_delete_=True, type='SpatialCrossEntropyLoss')))
train_dataloader = dict(batch_size=16)
