"""Two stacks of the paper's second version on MPII."""

_base_ = ['_base_/mpii.py', '_base_/schedules/adam.py']
