import math

import pytest
import torch
from mmengine.registry import MODELS

from hg_plugin.models import MultiStageHeatmapHead

CODEC = dict(type='UDPHeatmap', input_size=(64, 48), heatmap_size=(16, 12), sigma=1.5)


def make_head(**kwargs) -> MultiStageHeatmapHead:
    return MultiStageHeatmapHead(out_channels=2, num_stages=2, decoder=CODEC, **kwargs).eval()


def make_targets(keypoints: torch.Tensor) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing='ij')
    squares = (x - keypoints[..., 0, None, None]) ** 2 + (y - keypoints[..., 1, None, None]) ** 2
    return torch.exp(-squares / (2 * 1.5**2))


def test_a_perfect_prediction_decodes_to_its_target():
    head = make_head(loss=dict(type='SpatialCrossEntropyLoss'))
    targets = make_targets(torch.tensor([[[7.0, 5.0], [9.5, 6.25]]]))
    heatmaps = head.forward([torch.zeros_like(targets), targets.log() + 3])
    # far from the border the Gaussian is whole, so that the scale makes it the target again
    torch.testing.assert_close(heatmaps[1], targets, atol=0.01, rtol=0)
    (instances,) = head.decode(heatmaps[1])
    expected = torch.tensor([[7.0, 5.0], [9.5, 6.25]]) * torch.tensor([64 / 15, 48 / 11])
    assert abs(torch.tensor(instances.keypoints[0]) - expected).max() < 0.1
    assert instances.keypoint_scores.min() > 0.9
    # nothing known: the same everywhere
    assert heatmaps[0].std() < 1e-6
    assert heatmaps[0].mean().item() == pytest.approx(2 * math.pi * 1.5**2 / (12 * 16))


def test_the_loss_is_the_cross_entropy_of_torch():
    loss = MODELS.build(dict(type='SpatialCrossEntropyLoss', loss_weight=2.0))
    torch.manual_seed(0)
    output, target = torch.randn(3, 2, 12, 16), torch.rand(3, 2, 12, 16)
    weights = torch.tensor([[1.0, 0.0], [0.5, 1.0], [1.0, 1.0]])
    shares = target.flatten(2) / target.flatten(2).sum(dim=2, keepdim=True)
    target[2, 1], shares[2, 1] = 0, 1 / (12 * 16)  # absent: anywhere alike
    logits, shares = output.flatten(2).flatten(0, 1), shares.flatten(0, 1)
    each = torch.nn.functional.cross_entropy(logits, shares, reduction='none')
    expected = 2 * (each * weights.flatten()).sum() / weights.sum()
    assert loss(output, target, weights).item() == pytest.approx(expected.item(), rel=1e-5)
    unweighted = MODELS.build(dict(type='SpatialCrossEntropyLoss', use_target_weight=False))
    assert unweighted(output, target, weights).item() == pytest.approx(each[:-1].mean().item(), rel=1e-5)
    # in half precision, too
    assert loss(output.bfloat16(), target, weights).isfinite()


def test_every_stage_may_have_its_loss_and_way_to_heatmaps():
    head = make_head(loss=[dict(type='KeypointMSELoss'), dict(type='SpatialCrossEntropyLoss')])
    outputs = [torch.randn(1, 2, 12, 16) for _ in range(2)]
    first, last = head.forward(outputs)
    assert first is outputs[0]
    assert last.min() >= 0 and last.sum().item() == pytest.approx(2 * 2 * math.pi * 1.5**2, rel=1e-5)
    samples = dict(heatmaps=make_targets(torch.full((1, 2, 2), 6.0)), keypoint_weights=torch.ones(1, 2))
    losses = head.loss(outputs, samples)
    # the peak that is logged is of heatmaps, not of logits
    assert losses['heatmap_peak'].item() == pytest.approx(last.amax(dim=(2, 3)).mean().item())

    head.loss_module[0].to_heatmaps = lambda output, codec: output.sigmoid() * codec.sigma
    assert torch.equal(head.forward(outputs)[0], outputs[0].sigmoid() * 1.5)
