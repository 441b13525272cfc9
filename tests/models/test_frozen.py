"""Layers that stay as they are, and weights of keypoints."""

import numpy as np
import pytest
import torch
from mmengine.optim import build_optim_wrapper

from hg_plugin.datasets import PackKeypoints
from hg_plugin.models import StackedHourglass

FIRST = ('stem', 'hourglasses.0', 'features.0', 'scores.0', 'joins.0')
SMALL = dict(channels=8, depth=1, num_keypoints=3)


def changed_after_a_step(net, optimizer):
    """The names of parameters and buffers that a step changes."""
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    wrapper = build_optim_wrapper(net, dict(optimizer=dict(lr=0.1, **optimizer)))
    net.train()
    sum(heatmaps.square().mean() for heatmaps in net(torch.rand(2, 3, 32, 32))).backward()
    wrapper.step()
    return {name for name, tensor in net.state_dict().items() if not torch.equal(tensor, before[name])}


@pytest.mark.parametrize('optimizer', [dict(type='Adam'), dict(type='MuonWithAuxAdam')])
@pytest.mark.parametrize('frozen, parts', [(-1, ()), (0, ('stem',)), (1, FIRST), (2, ('',))])
def test_frozen_stages_keep_parameters_and_statistics(frozen, parts, optimizer):
    net = StackedHourglass(**SMALL, frozen_stages=frozen)
    if frozen == 2:
        assert not any(parameter.requires_grad for parameter in net.parameters())
        return
    changed = changed_after_a_step(net, optimizer)
    assert not [name for name in changed if name.startswith(parts)]
    assert {'scores.1.weight', 'hourglasses.1.up.0.norm1.running_mean'} <= changed
    assert ('stem_conv.0.weight' in changed) == (frozen < 0)
    assert ('joins.0.from_features.weight' in changed) == (frozen < 1)


def test_norm_eval_keeps_statistics_only():
    changed = changed_after_a_step(StackedHourglass(**SMALL, norm_eval=True), dict(type='SGD'))
    assert 'stem_conv.1.weight' in changed
    assert not any('running' in name or 'num_batches' in name for name in changed)


@pytest.mark.parametrize('use', [False, True])
def test_joint_weights_of_the_metainfo(use):
    visible = np.array([[1.0, -1.0, 0.5]], np.float32)
    results = dict(
        img=np.zeros((8, 8, 3), np.uint8),
        transformed_keypoints=np.ones((1, 3, 2)),
        keypoints_visible=visible,
        dataset_keypoint_weights=np.array([1.5, 2.0, 1.0], np.float32),
    )
    weights = PackKeypoints(use_dataset_keypoint_weights=use)(results)['data_samples']['keypoints_visible']
    assert weights.tolist() == ([1.5, -2.0, 0.5] if use else [1.0, -1.0, 0.5])
