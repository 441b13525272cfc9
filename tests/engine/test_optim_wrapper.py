from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from hg_plugin.compat.torch import torch_before
from hg_plugin.utils.errors import InputError

ADAM = dict(type='Adam', lr=0.1)


def build(model, optimizer=ADAM, **kwargs):
    return build_optim_wrapper(model, dict(type='AutocastOptimWrapper', optimizer=optimizer, **kwargs))


@pytest.mark.parametrize('gpu_beside', [False, True])
@pytest.mark.parametrize(
    'gpu, cpu, options, expected',
    [
        ((8, 0), False, {}, True),
        ((7, 5), True, {}, False),
        (None, False, {}, False),
        (None, True, {}, True),
        (None, None, {}, False),  # torch cannot tell
        (None, True, dict(on_cpu=False), False),
        (None, False, dict(on_cpu=True), True),
    ],
)
def test_autocast_is_on_where_the_device_has_bfloat16(monkeypatch, gpu, cpu, options, expected, gpu_beside):
    """The model is on a GPU of the capability ``gpu``, or on the CPU, with or without a GPU beside it."""
    model = torch.nn.Linear(2, 2)
    wrapper = build(model, **options)
    entered = []
    monkeypatch.setattr(model, 'parameters', lambda: iter([SimpleNamespace(is_cuda=gpu is not None)]))
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu is not None or gpu_beside)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: gpu or (8, 0))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'Tesla T4')
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: dict(avx512_bf16=cpu), raising=False)
    if cpu is None:
        monkeypatch.delattr(torch.cpu, 'get_capabilities')
    monkeypatch.setattr(
        torch, 'autocast', lambda *args, **kwargs: entered.append((*args, kwargs)) or nullcontext()
    )
    for _ in range(2):
        with wrapper.optim_context(model):
            pass
    assert entered == [('cuda' if gpu else 'cpu', torch.bfloat16, dict(enabled=expected))] * 2


@pytest.mark.parametrize('dtype', ['bfloat16', None])
def test_a_cpu_trains_in_bfloat16_when_told(dtype):
    model = torch.nn.Linear(2, 2)
    wrapper = build(model, dtype=dtype, on_cpu=True)
    with wrapper.optim_context(model):
        out = model(torch.ones(1, 2))
    assert out.dtype == (torch.bfloat16 if dtype else torch.float32)
    before = model.weight.clone()
    wrapper.update_params(out.float().square().sum())
    assert model.weight.dtype == torch.float32 and not torch.equal(before, model.weight)


def test_another_dtype_is_refused():
    with pytest.raises(InputError, match='float16'):
        build(torch.nn.Linear(2, 2), dtype='float16')


def test_gradients_that_are_accumulated_are_not_sent_to_other_processes():
    """MMEngine's wrapper asks DistributedDataParallel for that, by ``no_sync``."""
    model, kept = torch.nn.Linear(2, 2), []
    model.no_sync = lambda: kept.append(True) or nullcontext()
    wrapper = build(model, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    counts = []
    for _ in range(4):
        with wrapper.optim_context(model):
            wrapper.update_params(model(torch.ones(1, 2)).float().sum())
        counts.append(len(kept))
    assert counts == [1, 1, 2, 2]


@pytest.mark.parametrize('optimizer', [dict(type='Adam', fused=True), dict(type='Adam'), dict(type='SGD')])
@pytest.mark.parametrize('accumulate', [1, 2])
@pytest.mark.parametrize('bad', [float('nan'), float('inf'), 1e25])
def test_a_step_with_a_gradient_that_is_not_finite_is_skipped(optimizer, accumulate, bad):
    """1e25 is finite, but its square is not."""
    if optimizer.get('fused') and torch_before('2.4'):
        pytest.skip('torch before 2.4 has no fused optimizers on CPUs')
    model, reference = (torch.nn.Linear(2, 2) for _ in range(2))
    reference.load_state_dict(model.state_dict())
    optimizer = dict(optimizer, lr=0.1, weight_decay=0.1)
    wrappers = [build(each, optimizer, accumulative_counts=accumulate) for each in (model, reference)]
    for value in (1.0, 2.0, bad, 3.0):
        for part in range(accumulate):
            inputs = torch.full((1, 2), value if part == 0 else 1.0)
            wrappers[0].update_params(model(inputs).sum())
            if value != bad:
                wrappers[1].update_params(reference(inputs).sum())
    assert [flag.item() for flag in wrappers[0].skipped] == [0, 0, 1, 0]
    torch.testing.assert_close(model.state_dict(), reference.state_dict(), rtol=0, atol=0)
    states = [wrapper.optimizer.state_dict()['state'] for wrapper in wrappers]
    for own, other in zip(*(state.values() for state in states)):
        assert all(torch.equal(own[name], other[name]) for name in own if own[name] is not None)


def test_a_loss_that_is_not_finite_skips_the_step_whatever_its_gradients():
    model = torch.nn.Linear(2, 2)
    before = model.weight.clone()
    wrapper = build(model)
    wrapper.update_params(model(torch.ones(1, 2)).sum() + float('inf'))
    assert torch.equal(model.weight, before) and wrapper.skipped[-1] == 1
