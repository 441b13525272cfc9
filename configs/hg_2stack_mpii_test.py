"""Two stacks on MPII's test set: tools/test.py writes the file to send to MPII's server."""

_base_ = ['hg_2stack_mpii.py']

test_dataloader = dict(dataset=dict(ann_file='annotations/mpii_test.json', headbox_file=None))
test_evaluator = dict(_delete_=True, type='MPIISubmission', out_file='pred_keypoints_mpii.mat')
