import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from hg_plugin.engine.bfloat16_weights import Bfloat16Weights


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, bias=False)
        )
        self.frozen = nn.Conv2d(4, 4, 1).requires_grad_(False)
        self.unused = nn.Linear(2, 2)
        self.classify = nn.Linear(4, 2)

    def forward(self, x):
        x = self.frozen(self.features(x))
        return self.classify(x.mean(dim=(2, 3))) + self.classify(x.amax(dim=(2, 3)))


def train(model, steps):
    cfg = dict(type='AutocastOptimWrapper', on_cpu=True, optimizer=dict(type='Adam', lr=0.01))
    wrapper = build_optim_wrapper(model, cfg)
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(steps):
        with wrapper.optim_context(model):
            loss = model(torch.rand(2, 3, 8, 8, generator=generator)).float().square().sum()
        wrapper.update_params(loss)
        losses.append(loss.item())
    return losses


def test_a_training_is_that_of_autocast_bit_by_bit(monkeypatch):
    """With a layer that runs twice, one that is frozen and one that is not used."""
    models = [Network(), Network()]
    losses = train(models[0], 4)
    monkeypatch.setattr('hg_plugin.engine.bfloat16_weights.LAYERS', ())
    assert losses == train(models[1], 4)
    torch.testing.assert_close(*(model.state_dict() for model in models), rtol=0, atol=0)


def test_weights_are_back_after_an_error():
    model = Network()
    before = dict(model.named_parameters())
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(KeyError), Bfloat16Weights(model).stand_in():
        assert model.classify.weight.dtype == torch.bfloat16 and model.frozen.weight.dtype == torch.float32
        raise KeyError
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)
