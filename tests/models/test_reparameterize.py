import copy

import pytest
import torch
from torch import nn

from hg_plugin.models import StackedHourglass, reparameterize
from hg_plugin.models.stacked_hourglass import PreActResidual
from hg_plugin.utils.errors import InputError

SMALL = dict(num_stacks=3, num_keypoints=5, depth=2, channels=32)
V1 = dict(num_blocks=(3, 1), residual='postact', join='concat')
NETWORKS = {
    'paper v2': {},
    'bearpaw': dict(stem_channels=(8, 16, 32, 32)),
    'paper v1': dict(V1, stem_channels=(8, 16, 16, 16, 32), out_channels=64),
    'preact, concat': dict(join='concat', out_channels=48),
    'postact, add': dict(residual='postact', num_blocks=2),
}


def relative_difference(a, b):
    return float((a - b).abs().max() / b.std())


@pytest.fixture(params=NETWORKS, ids=str)
def network(request, random_norms):
    torch.manual_seed(0)
    return random_norms(StackedHourglass(**SMALL, **NETWORKS[request.param])).eval()


@torch.no_grad()
@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-4), (torch.float64, 1e-11)], ids=str)
def test_same_heatmaps(network, dtype, tolerance):
    network, image = network.to(dtype), torch.randn(2, 3, 32, 48, dtype=dtype)
    before = copy.deepcopy(network.state_dict())
    expected = network(image)
    (last,) = reparameterize(network)(image)
    assert last.shape == (2, 5, 8, 12)
    assert relative_difference(last, expected[-1]) < tolerance
    every = reparameterize(network, all_stacks=True)(image)
    assert len(every) == 3
    for a, b in zip(every, expected):
        assert relative_difference(a, b) < tolerance
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


def named(network, kind):
    return [name for name, module in network.named_modules() if isinstance(module, kind)]


def test_batch_norms_stay_only_where_they_read_a_sum(network):
    """The first norm of each pre-activation residual; the other families have none left."""
    residuals = named(network, PreActResidual)
    norms = named(reparameterize(network, all_stacks=True), nn.modules.batchnorm._BatchNorm)
    assert norms == [f'{residual}.norm1' for residual in residuals]


def test_one_convolution_between_two_stacks(network):
    convolutions = len(named(network, nn.Conv2d))
    assert len(named(reparameterize(network), nn.Conv2d)) == convolutions - 2 * 2  # 2 of 3 at each of 2 joins
    assert len(named(reparameterize(network, all_stacks=True), nn.Conv2d)) == convolutions


NORMS = [dict(type='SyncBN'), dict(type='BN', affine=False, eps=0.1), dict(type='GN', num_groups=4)]


@torch.no_grad()
@pytest.mark.parametrize('norm_cfg', NORMS, ids=str)
def test_other_norms(norm_cfg, random_norms):
    small = dict(num_stacks=2, depth=2, channels=16, residual='postact')
    network = random_norms(StackedHourglass(**small, norm_cfg=norm_cfg)).eval()
    image = torch.randn(1, 3, 32, 32)
    assert relative_difference(reparameterize(network)(image)[0], network(image)[-1]) < 1e-4


@torch.no_grad()
def test_training_mode_stays(random_norms):
    network = random_norms(StackedHourglass(depth=1, channels=16))
    image = torch.randn(2, 3, 32, 32)
    (last,) = reparameterize(network)(image)
    assert all(module.training for module in network.modules())
    assert relative_difference(last, network.eval()(image)[-1]) < 1e-4


def test_other_networks_are_refused():
    with pytest.raises(InputError, match='Conv2d'):
        reparameterize(nn.Conv2d(3, 3, 1).eval())
    network = StackedHourglass(depth=1, channels=16).eval()
    with pytest.raises(InputError, match='LastStack'):
        reparameterize(reparameterize(network))
