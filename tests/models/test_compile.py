"""Training steps under torch.compile, whose graphs are counted, and as CUDA graphs: as in eager mode."""

import copy

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS
from torch._dynamo.utils import counters

from hg_plugin.utils.config import read_config

# A bias before a batch norm has no gradient but rounding, which these optimizers would scale to a full step.
OPTIMIZERS = dict(
    adam=dict(type='Adam', lr=1e-3, eps=1e-3, fused=True),
    rmsprop=dict(type='RMSprop', lr=1e-3, eps=1e-3),
    muon=dict(type='MuonWithAuxAdam', muon_lr=1e-3, min_channels=4, eps=1e-3, fused=True),
)


def batch(images):
    generator = torch.Generator().manual_seed(images)
    size = dict(size=(images, 3, 32, 32), dtype=torch.uint8, generator=generator)
    keypoints = torch.rand(images, 16, 2, generator=generator) * 32
    targets = dict(keypoints=keypoints, keypoints_visible=torch.ones(images, 16))
    return dict(inputs=torch.randint(0, 256, **size), data_samples=targets)


@pytest.fixture(scope='module')
def network(request):
    small = dict(num_stacks=1, channels=8, depth=1)
    options = {'input_size': (32, 32), **{f'model.backbone.{key}': value for key, value in small.items()}}
    cfg = read_config(request.config.rootpath / 'configs/hg_2stack_mpii.py', cfg_options=options)
    torch.manual_seed(0)
    return MODELS.build(cfg.model).train()


def train(model, step, **settings):
    wrapper = build_optim_wrapper(model, dict(type='AutocastOptimWrapper', **settings))
    return [step(batch(images), optim_wrapper=wrapper)['loss'].item() for images in (2, 2, 2)]


@pytest.fixture(scope='module')
def compiled(network):
    torch._dynamo.reset()
    model = copy.deepcopy(network)
    return model, torch.compile(model.train_step, backend='aot_eager')


@pytest.mark.parametrize('optimizer', OPTIMIZERS.values(), ids=list(OPTIMIZERS))
def test_a_compiled_training_is_that_of_eager_mode(network, compiled, optimizer):
    plain, (model, step) = copy.deepcopy(network), compiled
    model.load_state_dict(network.state_dict())
    expected = train(plain, plain.train_step, dtype=None, optimizer=optimizer)
    assert train(model, step, dtype=None, optimizer=optimizer) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=1e-5, atol=1e-5)
    assert not torch.equal(model.backbone.scores[0].weight, network.backbone.scores[0].weight)


def test_network_and_losses_are_one_graph_and_the_preprocessor_another(network):
    """Any break inside would make more."""
    torch._dynamo.reset()
    counters.clear()
    model = copy.deepcopy(network)
    train(model, torch.compile(model.train_step, backend='eager'), on_cpu=True, optimizer=OPTIMIZERS['adam'])
    assert counters['stats']['unique_graphs'] == 2


@pytest.mark.slow
@pytest.mark.usefixtures('cpp_compiler')
@pytest.mark.parametrize('dtype', [None, 'bfloat16'])
def test_inductor_computes_what_eager_mode_does(network, dtype):
    torch._dynamo.reset()
    plain, model = copy.deepcopy(network), copy.deepcopy(network)
    settings = dict(dtype=dtype, on_cpu=True, optimizer=OPTIMIZERS['adam'])
    expected = train(plain, plain.train_step, **settings)
    losses = train(model, torch.compile(model.train_step), **settings)
    if dtype:  # rounded less often, and so trained a little differently
        assert losses[0] == pytest.approx(expected[0], rel=2e-2) and losses[-1] < losses[0]
        return
    assert losses == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close([*model.parameters()], [*plain.parameters()], rtol=1e-5, atol=1e-5)
