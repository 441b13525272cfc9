import copy

import pytest
import torch
from mmengine.optim import ConstantLR, build_optim_wrapper
from torch import nn

from hg_plugin.engine import MuonWithAuxAdam
from hg_plugin.engine.muon import orthogonalize


def network():
    torch.manual_seed(0)
    convs = nn.Conv2d(48, 64, 3), nn.Conv2d(64, 48, 1), nn.Conv2d(48, 16, 1)
    return nn.Sequential(nn.Conv2d(3, 48, 3), nn.BatchNorm2d(48), *convs)


def train(model, optimizer, steps):
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(2, 3, 8, 8).cumsum(3)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize('is_cuda', [False, True])  # each has its order of the products
@pytest.mark.parametrize('shape', [(40, 100), (100, 40), (64, 200)])
def test_orthogonalized_matrices_keep_their_directions_at_equal_size(shape, is_cuda, monkeypatch):
    monkeypatch.setattr(torch.Tensor, 'is_cuda', is_cuda)
    generator = torch.Generator().manual_seed(0)
    matrices = torch.randn(3, *shape, generator=generator)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    # in the coordinates of the singular vectors, a diagonal of about 1
    cores = left.mT @ orthogonalize(matrices) @ right.mT
    diagonals = cores.diagonal(dim1=1, dim2=2)
    assert diagonals.min() > 0.65 and diagonals.max() < 1.25
    torch.testing.assert_close(cores, torch.diag_embed(diagonals), atol=1e-4, rtol=0)


@pytest.mark.parametrize('is_cuda', [False, True])
def test_small_gradients_stay_small_beside_large_ones(is_cuda, monkeypatch):
    monkeypatch.setattr(torch.Tensor, 'is_cuda', is_cuda)
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(size, 64))[0] for size in (64, 576))
    singular = torch.where(torch.arange(64) < 4, 1.0, 1e-6)
    values = torch.linalg.svdvals(orthogonalize((left * singular @ right.mT)[None]))[0]
    assert values[:4].min() > 0.6 and values[4:].max() < 2e-3


@pytest.mark.parametrize('weight_decay', [0, 0.1])
def test_features_convolutions_take_muons_step_and_the_rest_adams(weight_decay):
    model = network()
    before, reference = copy.deepcopy(model), copy.deepcopy(model)
    optimizer = MuonWithAuxAdam(model.parameters(), lr=1e-3, muon_lr=0.1, weight_decay=weight_decay)
    adam = torch.optim.AdamW(reference.parameters(), lr=1e-3, betas=(0.9, 0.99), weight_decay=weight_decay)
    train(model, optimizer, 1)
    train(reference, adam, 1)
    for name, parameter in model.named_parameters():
        old = before.get_parameter(name)
        if name in ('2.weight', '3.weight'):
            gradient = reference.get_parameter(name).grad.flatten(1)[None]
            scale = max(1, len(old) / old[0].numel()) ** 0.5
            expected = old * (1 - 0.1 * weight_decay) - 0.1 * scale * orthogonalize(gradient)[0].view_as(old)
            torch.testing.assert_close(parameter, expected, atol=1e-5, rtol=1e-4)
        else:
            assert parameter.equal(reference.get_parameter(name))
    assert [group['muon'] for group in optimizer.param_groups].count(True) == 1


def test_a_resumed_training_goes_on_as_if_it_had_not_stopped():
    model = network()
    model[3].requires_grad_(False)
    frozen = model[3].weight.clone()
    optimizer = MuonWithAuxAdam(model.parameters())
    train(model, optimizer, 3)
    resumed = copy.deepcopy(model)
    other = MuonWithAuxAdam(resumed.parameters())
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, optimizer, 2)
    train(resumed, other, 2)
    assert all(left.equal(right) for left, right in zip(model.parameters(), resumed.parameters()))
    assert model[3].weight.equal(frozen)


def test_groups_and_schedulers_change_both_learning_rates_alike():
    model = network()
    optimizer = dict(type='MuonWithAuxAdam', lr=1e-3, muon_lr=0.04)
    custom = dict(custom_keys={'2': dict(lr_mult=0.1)})
    cfg = dict(type='AutocastOptimWrapper', optimizer=optimizer, paramwise_cfg=custom)
    wrapper = build_optim_wrapper(model, cfg)
    rates = {group['params'][0].shape: group['lr'] for group in wrapper.param_groups}
    assert rates[model[2].weight.shape] == pytest.approx(0.004)
    assert rates[model[2].bias.shape] == pytest.approx(1e-4)
    assert rates[model[3].weight.shape] == pytest.approx(0.04)
    scheduler = ConstantLR(wrapper, factor=0.5, by_epoch=False)
    halves = [rate / 2 for rate in scheduler.base_values]
    assert [group['lr'] for group in wrapper.param_groups] == pytest.approx(halves)


@pytest.mark.parametrize('fused', [False, True])
@pytest.mark.parametrize('weight_decay', [0, 0.1])
def test_a_step_with_a_gradient_that_is_not_finite_changes_nothing(fused, weight_decay):
    model = network()
    optimizer = dict(type='MuonWithAuxAdam', fused=fused, weight_decay=weight_decay)
    wrapper = build_optim_wrapper(model, dict(type='AutocastOptimWrapper', optimizer=optimizer))
    train(model, wrapper, 2)
    before = copy.deepcopy((model.state_dict(), wrapper.optimizer.state_dict()['state']))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    model[2].weight.grad[0, 0, 0, 0] = float('nan')
    wrapper.step()
    assert [flag.item() for flag in wrapper.skipped] == [0, 0, 1]
    after = model.state_dict(), wrapper.optimizer.state_dict()['state']
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_gradients_of_a_scaled_loss_take_the_same_step():
    """As torch's ``GradScaler`` passes them to fused optimizers."""
    models = [network(), network()]
    for model, scale in zip(models, (1, 4)):
        optimizer = MuonWithAuxAdam(model.parameters(), fused=True)
        for _ in range(2):
            model(torch.ones(2, 3, 8, 8).cumsum(3)).square().mean().mul(scale).backward()
            optimizer.grad_scale, optimizer.found_inf = torch.tensor(float(scale)), torch.tensor(0.0)
            optimizer.step()
            optimizer.zero_grad()
    torch.testing.assert_close(*([*model.parameters()] for model in models), rtol=0, atol=0)
