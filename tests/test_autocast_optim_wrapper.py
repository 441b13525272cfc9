import pytest
import torch
from mmengine.optim import build_optim_wrapper

from hg_plugin.errors import InputError


def build(model, **kwargs):
    return build_optim_wrapper(model, dict(type='AutocastOptimWrapper', optimizer=dict(type='Adam', lr=0.1, fused=True), **kwargs))


@pytest.mark.parametrize('gpu, dtype, expected', [(True, 'bfloat16', True), (True, None, False), (False, 'bfloat16', False)])
def test_autocast_is_on_where_there_is_a_gpu(monkeypatch, gpu, dtype, expected):
    model = torch.nn.Linear(2, 2)
    wrapper = build(model, dtype=dtype)
    entered = []
    real = torch.autocast
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(torch, 'autocast', lambda *args, enabled: entered.append((*args, enabled)) or real('cpu', enabled=False))
    with wrapper.optim_context(model):
        loss = model(torch.ones(1, 2)).square().sum()
    assert entered == [('cuda' if gpu else 'cpu', torch.bfloat16, expected)]
    before = model.weight.clone()
    wrapper.update_params(loss)
    assert not torch.equal(before, model.weight)


@pytest.mark.skipif(torch.cuda.is_available(), reason='the model is on the CPU, and autocast would be on the GPU')
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
    with pytest.raises(InputError, match="optim_wrapper.dtype is 'float16'"):
        build(torch.nn.Linear(2, 2), dtype='float16')
