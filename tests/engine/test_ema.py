import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from hg_plugin.engine import ForeachEMA


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


@torch.no_grad()
def step(model):
    """What a training step does to weights, running statistics and their counter."""
    for parameter in model.parameters():
        parameter += torch.randn_like(parameter)
    model(torch.randn(2, 3, 5, 5))


@pytest.mark.parametrize(
    'stock, settings',
    [
        ('ExponentialMovingAverage', dict(momentum=0.3)),
        ('ExponentialMovingAverage', dict(momentum=0.3, update_buffers=True)),
        ('ExpMomentumEMA', dict(momentum=0.1, gamma=4, interval=2, update_buffers=True)),
    ],
)
def test_averages_are_those_of_mmengine_and_mmpose_also_after_a_resume(stock, settings):
    init_default_scope('mmpose')
    model = network()
    theirs = MODELS.build(dict(type=stock, **settings), default_args=dict(model=model))
    ours = MODELS.build(dict(type='ForeachEMA', **settings), default_args=dict(model=model))
    for index in range(12):
        step(model)
        if index == 5:  # either one's checkpoint fits the other
            state = theirs.state_dict()
            ours = MODELS.build(dict(type='ForeachEMA', **settings), default_args=dict(model=model))
            ours.load_state_dict(state)
        theirs.update_parameters(model)
        ours.update_parameters(model)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=1e-5, atol=1e-6)
    assert ours.steps == ours.steps_on_host == 12


@pytest.mark.parametrize('settings', [{}, dict(update_buffers=True)], ids=str)
def test_an_average_elsewhere_stays_there(settings):
    model = network()
    ema = ForeachEMA(model, device='meta', **settings)
    for _ in range(2):
        ema.update_parameters(model)
    assert {tensor.device.type for tensor in ema.module.state_dict().values()} == {'meta'}
    assert {tensor.device.type for tensor in model.state_dict().values()} == {'cpu'}


def test_gamma_out_of_range():
    with pytest.raises(AssertionError, match='gamma must be'):
        ForeachEMA(network(), gamma=0)


def test_running_statistics_stay_the_models_when_they_are_averaged_or_replaced():
    model = network()
    ema = ForeachEMA(model)
    step(model)
    ema.update_parameters(model)
    model[1].running_mean += 1  # as MMEngine's SyncBuffersHook does, after the last iteration of an epoch
    assert torch.equal(ema.module[1].running_mean, model[1].running_mean)
    assert not torch.equal(ema.module[0].weight, network()[0].weight)
    assert ema.module[0].weight is not model[0].weight
    model[1].running_mean = torch.full((4,), 7.0)  # as a hook may
    ema.update_parameters(model)
    assert torch.equal(ema.module[1].running_mean, model[1].running_mean)
