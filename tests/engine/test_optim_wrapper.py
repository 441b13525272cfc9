import contextlib
import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import build_optim_wrapper

from hg_plugin.compat.torch import torch_before
from hg_plugin.engine.optim_wrapper import cpu_has_bfloat16
from hg_plugin.utils.errors import InputError


def build(model, **kwargs):
    return build_optim_wrapper(
        model, dict(type='AutocastOptimWrapper', optimizer=dict(type='Adam', lr=0.1), **kwargs)
    )


@pytest.mark.parametrize('gpu_beside', [False, True])
@pytest.mark.parametrize(
    'gpu, cpu, options, expected',
    [
        ((8, 0), False, {}, True),
        ((8, 0), True, dict(dtype=None), False),
        ((7, 5), True, {}, False),
        (None, False, {}, False),
        (None, True, {}, True),
        (None, True, dict(dtype=None), False),
        (None, True, dict(on_cpu=False), False),
        (None, False, dict(on_cpu=True), True),
    ],
)
def test_autocast_is_on_where_the_models_device_has_bfloat16(
    monkeypatch, gpu, cpu, options, expected, gpu_beside
):
    """The model is on a GPU of the capability ``gpu``, or on the CPU, with or without a GPU beside it."""
    model = torch.nn.Linear(2, 2)
    wrapper = build(model, **options)
    monkeypatch.setattr(model, 'parameters', lambda: iter([SimpleNamespace(is_cuda=gpu is not None)]))
    entered = []
    real = torch.autocast
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu is not None or gpu_beside)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda: gpu or (8, 0))
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda: 'Tesla T4')
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: dict(avx512_bf16=cpu), raising=False)
    told = []
    monkeypatch.setattr(
        'hg_plugin.engine.optim_wrapper.print_log',
        lambda text, logger, level=logging.INFO: told.append(level),
    )
    monkeypatch.setattr(
        torch,
        'autocast',
        lambda *args, enabled: entered.append((*args, enabled)) or real('cpu', args[1], enabled=enabled),
    )
    with wrapper.optim_context(model):
        loss = model(torch.ones(1, 2)).float().square().sum()
    with wrapper.optim_context(model):
        pass
    assert entered == [('cuda' if gpu else 'cpu', torch.bfloat16, expected)] * 2
    assert told == (
        [logging.WARNING] if gpu == (7, 5) else [logging.INFO] if gpu is None and cpu and not options else []
    )
    monkeypatch.undo()
    before = model.weight.clone()
    wrapper.update_params(loss)
    assert not torch.equal(before, model.weight)


def test_a_torch_that_cannot_tell_leaves_cpus_at_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, 'get_capabilities', raising=False)
    assert cpu_has_bfloat16() is False


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


def test_gradients_that_are_accumulated_are_not_sent_to_other_processes():
    """MMEngine's wrapper asks DistributedDataParallel for that, by ``no_sync``."""
    model = torch.nn.Linear(2, 2)
    synced = []

    @contextlib.contextmanager
    def no_sync():
        synced.append(False)
        yield

    model.no_sync = no_sync
    wrapper = build(model, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    for _ in range(4):
        before = len(synced)
        with wrapper.optim_context(model):
            loss = model(torch.ones(1, 2)).float().sum()
        synced.append(len(synced) == before)
        wrapper.update_params(loss)
    assert [s for s in synced if s] == [True, True] and synced.count(False) == 4


def test_a_checkpoint_does_not_say_whether_the_optimiser_is_fused():
    """One of a GPU goes on on a CPU, where torch before 2.4 has no fused optimisers."""
    model = torch.nn.Linear(2, 2)
    wrappers = [
        build_optim_wrapper(
            model, dict(type='AutocastOptimWrapper', optimizer=dict(type='Adam', lr=0.1, fused=fused))
        )
        for fused in (None, False)
    ]
    wrappers[0].update_params(model(torch.ones(1, 2)).square().sum())
    state = wrappers[0].state_dict()
    state['param_groups'][0]['fused'] = True
    wrappers[1].load_state_dict(state)
    assert wrappers[1].param_groups[0]['fused'] is False and len(wrappers[1].optimizer.state) == 2
    wrappers[1].update_params(model(torch.ones(1, 2)).square().sum())


@pytest.mark.parametrize('optimizer', [dict(type='Adam', fused=True), dict(type='Adam'), dict(type='SGD')])
@pytest.mark.parametrize('accumulate', [1, 2])
@pytest.mark.parametrize('bad', [float('nan'), float('inf'), 1e25])
def test_a_step_with_a_gradient_that_is_not_finite_is_skipped(optimizer, accumulate, bad):
    """1e25 is finite, but its square is not."""
    if optimizer.get('fused') and torch_before('2.4'):
        pytest.skip('torch before 2.4 has no fused optimizers on CPUs')
    model, reference = (torch.nn.Linear(2, 2) for _ in range(2))
    reference.load_state_dict(model.state_dict())
    wrappers = [
        build_optim_wrapper(
            each,
            dict(
                type='AutocastOptimWrapper',
                accumulative_counts=accumulate,
                optimizer=dict(lr=0.1, weight_decay=0.1, **optimizer),
            ),
        )
        for each in (model, reference)
    ]
    for value in (1.0, 2.0, bad, 3.0):
        for part in range(accumulate):
            inputs = torch.full((1, 2), value if part == 0 else 1.0)
            wrappers[0].update_params(model(inputs).sum())
            if value != bad:
                wrappers[1].update_params(reference(inputs).sum())
    assert [flag.item() for flag in wrappers[0].skipped] == [0, 0, 1, 0]
    for name, value in model.state_dict().items():
        assert torch.equal(value, reference.state_dict()[name]), name
    states = [wrapper.optimizer.state_dict()['state'] for wrapper in wrappers]
    for own, other in zip(*(state.values() for state in states)):
        assert all(torch.equal(own[name], other[name]) for name in own if own[name] is not None)


def test_a_loss_that_is_not_finite_skips_the_step_whatever_its_gradients():
    model = torch.nn.Linear(2, 2)
    before = model.weight.clone()
    wrapper = build(model)
    wrapper.update_params(model(torch.ones(1, 2)).sum() + float('inf'))
    assert torch.equal(model.weight, before) and wrapper.skipped[-1] == 1
