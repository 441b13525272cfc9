"""Two stacks of 64 channels on COCO at 192x256, no slower than RTMPose-s on a CPU: docs/benchmarks.md.

It was not trained; its accuracy is not measured.
"""

_base_ = ['hg_2stack_coco.py']

# a small network learns several times as fast with this loss
model = dict(backbone=dict(channels=64), head=dict(loss=dict(_delete_=True, type='SpatialCrossEntropyLoss')))
