"""Without a GPU, what would be captured is called."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

from hg_plugin.engine.cuda_graph import GraphedStep
from hg_plugin.utils.errors import InputError


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 40, 3), nn.BatchNorm2d(40), nn.Conv2d(40, 32, 3))

    def train_step(self, data, optim_wrapper):
        with optim_wrapper.optim_context(self):
            output = self.layers(data['inputs']).float()
        loss = (output.mean(dim=(1, 2, 3)) - data['data_samples']['target']).square().mean()
        optim_wrapper.update_params(loss)
        return dict(loss=loss, peak=output.amax())


def build(model, **settings):
    settings.setdefault('optimizer', dict(type='Adam', lr=0.5**7, fused=True))
    return build_optim_wrapper(model, dict(type='AutocastOptimWrapper', **settings))


def batches(*sizes):
    """The fourth one is not finite."""
    generator = torch.Generator().manual_seed(0)
    for index, size in enumerate(sizes):
        inputs = torch.rand(size, 3, 8, 8, generator=generator)
        target = torch.rand(size, generator=generator)
        yield dict(inputs=inputs / (index != 3), data_samples=dict(target=target))


@pytest.mark.parametrize('optimizer', ['Adam', 'MuonWithAuxAdam'])
@pytest.mark.parametrize('on_cpu', [False, True])
def test_weights_are_those_of_single_calls_bit_by_bit(optimizer, on_cpu):
    """With a short batch, learning rates that change, and a step that is skipped."""
    models = [Model(), Model()]
    settings = dict(optimizer=dict(type=optimizer, lr=0.5**7, fused=True), on_cpu=on_cpu)
    wrappers = [build(model, **settings) for model in models]
    steps = [models[0].train_step, GraphedStep(models[1].train_step, wrappers[1], warmup=2)]
    outputs = ([], [])
    for step, wrapper, output in zip(steps, wrappers, outputs):
        for index, batch in enumerate(batches(4, 4, 4, 4, 2, 4)):
            for group in wrapper.optimizer.param_groups:
                # powers of two are the same in float32
                group['lr'] = 0.5 ** (4 + index)
            output.append({name: value.item() for name, value in step(batch, optim_wrapper=wrapper).items()})
    assert repr(outputs[0]) == repr(outputs[1])  # nan is not equal to nan
    assert [flag.item() for flag in wrappers[1].skipped] == [0, 0, 0, 1, 0, 0]
    assert wrappers[0].inner_count == wrappers[1].inner_count == 6
    for (name, value), other in zip(models[0].state_dict().items(), models[1].state_dict().values()):
        assert value.equal(other) or 'running' in name, name  # DivergenceHook puts these back
    states = [wrapper.optimizer.state_dict() for wrapper in wrappers]
    assert states[0]['param_groups'] == states[1]['param_groups']
    torch.testing.assert_close(*(state['state'] for state in states), rtol=0, atol=0)


def test_a_step_is_captured_once_and_again_after_a_state_was_loaded(monkeypatch):
    captured = []
    monkeypatch.setattr('hg_plugin.engine.cuda_graph.capture', lambda step: captured.append(step) or step)
    model = Model()
    wrapper = build(model)
    graphed = GraphedStep(model.train_step, wrapper, warmup=1)
    for index, batch in enumerate(batches(2, 2, 2)):
        graphed(batch, optim_wrapper=wrapper)
        assert len(captured) == min(index, 1)
    wrapper.load_state_dict(copy.deepcopy(wrapper.state_dict()))
    graphed(next(batches(2)), optim_wrapper=wrapper)
    assert len(captured) == 2


@pytest.mark.parametrize(
    'settings',
    [
        dict(optimizer=dict(type='RMSprop')),
        dict(optimizer=dict(type='Adam')),
        dict(accumulative_counts=2),
        dict(clip_grad=dict(max_norm=1)),
    ],
)
def test_what_makes_the_host_wait_is_refused(settings):
    model = Model()
    with pytest.raises(InputError, match='optim_wrapper'):
        GraphedStep(model.train_step, build(model, **settings))
    wrapper = build(model)
    with pytest.raises(InputError, match='PackKeypoints'):
        GraphedStep(model.train_step, wrapper)(dict(inputs=[], data_samples=[]), optim_wrapper=wrapper)
