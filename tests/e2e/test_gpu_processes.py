"""Trainings on a GPU in processes of their own: NCCL, SyncBN, and checkpoints that go from one device to the
other and back."""

import math

import pytest
import torch

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='torch finds no GPU')]
NO_GPU = dict(CUDA_VISIBLE_DEVICES='')


@pytest.fixture
def exact(train):
    """Runs a training in float32 with a batch norm of a kind."""

    def exact(name, *options, epochs=1, norm='BN', **kwargs):
        settings = f"model['backbone']['norm_cfg'] = dict(type='{norm}')\noptim_wrapper = dict(dtype=None)\n"
        settings += f'train_cfg = dict(max_epochs={epochs})\nenv_cfg = dict(tf32=False)\n'
        return train(name, settings, *options, **kwargs)

    return exact


@pytest.mark.parametrize(
    'backend, norm',
    [pytest.param('nccl', 'SyncBN', marks=GPU), pytest.param('gloo', 'BN', marks=pytest.mark.slow)],
)
def test_one_process_trains_as_none(exact, backend, norm):
    """With NCCL and SyncBN on a GPU; on a CPU, for which there are neither, with gloo."""
    env = NO_GPU if backend == 'gloo' else {}
    expected, _ = exact('plain', env=env)
    losses, out = exact('distributed', norm=norm, processes=1, env=env)
    assert sorted(losses) == [(1, 1), (1, 2), (1, 3), (1, 4)]
    assert losses == {step: pytest.approx(loss, rel=1e-2) for step, loss in expected.items()}
    assert ('memory: ' in out) == (backend == 'nccl')  # which MMEngine logs on GPUs only


def optimizer_steps(checkpoint):
    """How often each parameter was updated, and the devices of all that the checkpoint holds."""
    state = torch.load(checkpoint)
    moments = state['optimizer']['state'].values()
    values = [value for part in (state['state_dict'], *moments) for value in part.values()]
    devices = {value.device.type for value in values if torch.is_tensor(value)}
    return {int(moment['step']) for moment in moments}, devices


@pytest.mark.parametrize(
    'env', [pytest.param({}, marks=GPU, id='gpu'), pytest.param(NO_GPU, marks=pytest.mark.slow, id='cpu')]
)
def test_a_cpus_checkpoint_goes_on_on_the_gpu_and_back(exact, tmp_path, env):
    first, _ = exact('first', epochs=1, env=NO_GPU)
    second, out = exact('second', '--resume', tmp_path / 'first/epoch_1.pth', epochs=2, env=env)
    assert sorted(second) == [(2, step) for step in (1, 2, 3, 4)] and 'resumed epoch: 1' in out
    assert ('memory: ' in out) == (env != NO_GPU)
    third, out = exact('third', '--resume', tmp_path / 'second/epoch_2.pth', epochs=3, env=NO_GPU)
    assert sorted(third) == [(3, step) for step in (1, 2, 3, 4)] and 'resumed epoch: 2' in out
    assert 'memory: ' not in out
    assert optimizer_steps(tmp_path / 'third/epoch_3.pth') == ({12}, {'cpu'})
    alone, _ = exact('alone', '--resume', tmp_path / 'first/epoch_1.pth', epochs=2, env=NO_GPU)
    assert second == {step: pytest.approx(loss, rel=2e-2) for step, loss in alone.items()}
    assert all(map(math.isfinite, (*first.values(), *third.values())))
