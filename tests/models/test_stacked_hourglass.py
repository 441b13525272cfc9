import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from hg_plugin.compat.torch import torch_before
from hg_plugin.models import StackedHourglass
from hg_plugin.utils.errors import InputError

BEARPAW = dict(stem_channels=(64, 128, 256, 256))
V1 = dict(num_blocks=(3, 1), residual='postact', join='concat')
PAPER_V1 = dict(V1, stem_channels=(64, 128, 128, 128, 256), out_channels=512)


@pytest.mark.parametrize(
    'kwargs, parameters',
    [
        (dict(num_stacks=2), 6_570_400),
        (dict(num_stacks=8), 25_434_112),
        (dict(num_stacks=8, **BEARPAW), 25_594_624),
        (dict(num_stacks=2, **PAPER_V1), 26_370_848),
    ],
)
def test_parameters_of_the_published_networks(kwargs, parameters):
    assert sum(p.numel() for p in StackedHourglass(**kwargs).parameters()) == parameters


@pytest.mark.parametrize(
    'variant', [{}, dict(num_blocks=2), dict(V1, stem_channels=(8, 16, 16, 16, 32), out_channels=64)]
)
def test_every_stack_returns_heatmaps_and_every_weight_learns(variant):
    model = StackedHourglass(num_stacks=3, num_keypoints=5, depth=2, channels=32, **variant)
    heatmaps = model(torch.randn(2, 3, 32, 48))
    assert [tuple(h.shape) for h in heatmaps] == [(2, 5, 8, 12)] * 3
    heatmaps[-1].square().mean().backward()
    # the last loss reaches all weights: each stack is fed the input, features and heatmaps of the one before
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_checkpointing_changes_neither_gradients_nor_running_statistics():
    torch.manual_seed(0)
    plain = StackedHourglass(num_stacks=3, depth=2, channels=16)
    frugal = copy.deepcopy(plain)
    frugal.with_cp = True
    image = torch.randn(2, 3, 32, 32)
    for model in (plain, frugal):
        for _ in range(2):
            sum(h.square().mean() for h in model(image)).backward()
    gradients = ({name: p.grad for name, p in model.named_parameters()} for model in (plain, frugal))
    torch.testing.assert_close(*gradients, rtol=0, atol=0)
    torch.testing.assert_close(frugal.state_dict(), plain.state_dict(), rtol=0, atol=0)
    assert all(m.momentum == 0.1 for m in frugal.modules() if isinstance(m, torch.nn.BatchNorm2d))


@pytest.mark.parametrize('with_cp', [False, True])
def test_norms_count_their_batches_as_on_their_own(with_cp):
    model = StackedHourglass(num_stacks=1, depth=1, channels=8, with_cp=with_cp)
    image = torch.randn(2, 3, 16, 16)
    model.stem_conv[1].eval()  # frozen
    for _ in range(2):
        model(image)[-1].sum().backward()
    model.eval()(image)
    counts = {name: value.item() for name, value in model.named_buffers() if 'num_batches' in name}
    assert counts.pop('stem_conv.1.num_batches_tracked') == 0
    assert len(counts) > 20 and set(counts.values()) == {2}


def test_checkpointing_keeps_fewer_activations():
    kept = {}
    for with_cp in (False, True):
        model = StackedHourglass(num_stacks=4, depth=2, channels=16, with_cp=with_cp)
        sizes = []

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.randn(1, 3, 32, 32))
        kept[with_cp] = sum(sizes)
    assert kept[True] < kept[False] / 3


def test_other_sizes_name_those_that_would_work():
    network = StackedHourglass(num_stacks=1, channels=16)
    with pytest.raises(InputError, match='width 192 or 256 and height 64 or 128'):
        network(torch.zeros(1, 3, 100, 250))
    with pytest.raises(InputError, match='width 64 and height 256 or 320'):
        network(torch.zeros(1, 3, 257, 64))


@pytest.mark.parametrize(
    'kwargs, message',
    [
        (dict(num_stacks=0), 'num_stacks'),
        (dict(num_blocks=(1, 0)), 'num_blocks'),
        (dict(stem_channels=(64, 128)), 'at least three'),
        (dict(stem_channels=(64, 128, 128)), 'channels'),
        (dict(residual='resnet'), 'preact, postact'),
        (dict(out_channels=512), "join='add'"),
    ],
)
def test_arguments_that_build_no_network(kwargs, message):
    with pytest.raises(InputError, match=message):
        StackedHourglass(**kwargs)


@pytest.mark.skipif(
    torch_before('2.13'), reason='older torch asks the driver about tensors without storage, too'
)
def test_autocast_on_gpus_leaves_no_activation_in_float32():
    """Autocast on GPUs upsamples in float32 by default. Tensors without storage need no GPU."""
    network = MODELS.build(dict(type='StackedHourglass', channels=16, depth=2)).eval().requires_grad_(False)
    in_float32 = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            detached = func is torch.ops.aten.detach.default
            if isinstance(out, torch.Tensor) and out.dtype == torch.float32 and not detached:
                in_float32.add(str(func))
            return out

    with FakeTensorMode(allow_non_fake_inputs=True):
        on_gpu = {key: torch.empty_like(value, device='cuda') for key, value in network.state_dict().items()}
        image = torch.empty(2, 3, 64, 64, device='cuda')
        dtype = torch.get_autocast_dtype('cuda')
        torch.set_autocast_enabled('cuda', True)  # torch.autocast itself does so only where there is a GPU
        torch.set_autocast_dtype('cuda', torch.bfloat16)
        try:
            with Watch():
                heatmaps = functional_call(network, on_gpu, image)
        finally:
            torch.set_autocast_enabled('cuda', False)
            torch.set_autocast_dtype('cuda', dtype)
            torch.clear_autocast_cache()
    assert {(h.device.type, h.dtype) for h in heatmaps} == {('cuda', torch.bfloat16)}
    assert not in_float32
