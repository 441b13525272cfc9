"""Two stacks of the paper's second version on MPII."""
_base_ = ['_base_/runtime.py', '_base_/schedule.py', '_base_/mpii.py']
