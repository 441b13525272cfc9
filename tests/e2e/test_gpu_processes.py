"""Trainings on a GPU in processes of their own: NCCL, SyncBN, and checkpoints that go from one device to the
other and back."""

import math
import os
import re
import subprocess
import sys

import pytest
import torch

from hg_plugin.models import StackedHourglass
from hg_plugin.prepare.synthetic import make_synthetic

GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='torch finds no GPU')]
NO_GPU = dict(CUDA_VISIBLE_DEVICES='')
CONFIG = """
_base_ = ['{root}/configs/hg_2stack_synthetic.py']
model = dict(backbone=dict(channels=8, depth=1, norm_cfg=dict(type='{norm}')))
optim_wrapper = dict(dtype=None)
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs={epochs})
env_cfg = dict(tf32=False)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=-1))
log_processor = dict(window_size=1)
"""


@pytest.fixture(scope='module')
def persons(tmp_path_factory):
    folder = tmp_path_factory.mktemp('synthetic')
    make_synthetic(folder, num_train=16, num_val=4, seed=0, num_workers=1)
    return folder


@pytest.fixture
def train(persons, tmp_path, request, free_port):
    """Runs a training; returns {(epoch, step): loss}, and all that it printed."""

    def train(name, *options, epochs=1, norm='BN', processes=0, env={}):
        config = tmp_path / f'{name}.py'
        config.write_text(CONFIG.format(root=request.config.rootpath, epochs=epochs, norm=norm))
        command = (
            [sys.executable, 'tools/train.py', config]
            if processes == 0
            else ['bash', 'tools/dist_train.sh', config, processes]
        )
        result = subprocess.run(
            [
                *map(str, command),
                '--data-root',
                str(persons),
                '--work-dir',
                str(tmp_path / name),
                *map(str, options),
            ],
            cwd=request.config.rootpath,
            env={**os.environ, 'PYTHON': sys.executable, 'PORT': free_port(), **env},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
        )
        assert result.returncode == 0, result.stdout[-3000:]
        found = re.findall(r'Epoch\(train\) +\[(\d+)\]\[(\d)/4\].* loss: ([\d.]+)', result.stdout)
        return {(int(epoch), int(step)): float(loss) for epoch, step, loss in found}, result.stdout

    return train


@pytest.mark.parametrize(
    'backend, norm',
    [pytest.param('nccl', 'SyncBN', marks=GPU), pytest.param('gloo', 'BN', marks=pytest.mark.slow)],
)
def test_one_process_trains_as_none(train, backend, norm):
    """With NCCL and SyncBN on a GPU; on a CPU, for which there are neither, with gloo."""
    env = NO_GPU if backend == 'gloo' else {}
    expected, _ = train('plain', env=env)
    losses, out = train('distributed', norm=norm, processes=1, env=env)
    assert sorted(losses) == [(1, 1), (1, 2), (1, 3), (1, 4)]
    assert losses == {step: pytest.approx(loss, rel=1e-2) for step, loss in expected.items()}
    assert ('memory: ' in out) == (backend == 'nccl')  # which MMEngine logs on GPUs only


def optimizer_steps(checkpoint):
    """How often each parameter was updated, and the devices of all that the checkpoint holds."""
    state = torch.load(checkpoint)
    moments = state['optimizer']['state'].values()
    devices = {
        value.device.type
        for part in (state['state_dict'], *moments)
        for value in part.values()
        if torch.is_tensor(value)
    }
    return {int(moment['step']) for moment in moments}, devices


@pytest.mark.parametrize(
    'env', [pytest.param({}, marks=GPU, id='gpu'), pytest.param(NO_GPU, marks=pytest.mark.slow, id='cpu')]
)
def test_a_cpus_checkpoint_goes_on_on_the_gpu_and_back(train, tmp_path, env):
    first, _ = train('first', epochs=1, env=NO_GPU)
    second, out = train('second', '--resume', tmp_path / 'first/epoch_1.pth', epochs=2, env=env)
    assert sorted(second) == [(2, step) for step in (1, 2, 3, 4)] and 'resumed epoch: 1' in out
    assert ('memory: ' in out) == (env != NO_GPU)
    third, out = train('third', '--resume', tmp_path / 'second/epoch_2.pth', epochs=3, env=NO_GPU)
    assert (
        sorted(third) == [(3, step) for step in (1, 2, 3, 4)]
        and 'resumed epoch: 2' in out
        and 'memory: ' not in out
    )
    assert optimizer_steps(tmp_path / 'third/epoch_3.pth') == ({12}, {'cpu'})
    alone, _ = train('alone', '--resume', tmp_path / 'first/epoch_1.pth', epochs=2, env=NO_GPU)
    assert second == {step: pytest.approx(loss, rel=2e-2) for step, loss in alone.items()}
    assert all(map(math.isfinite, (*first.values(), *third.values())))


SYNC_BN = """
import sys
import torch
import torch.distributed as dist
from hg_plugin.models import StackedHourglass
rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group('gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2)
network = StackedHourglass(num_stacks=1, depth=1, channels=16, norm_cfg=dict(type='SyncBN')).cuda().train()
network.load_state_dict(torch.load(f'{folder}/weights.pt'))
image = torch.load(f'{folder}/image.pt')[2 * rank:2 * rank + 2].cuda()
heatmaps, = network(image)
heatmaps.square().mean().backward()
gradient = network.stem_conv[0].weight.grad
dist.all_reduce(gradient)
results = [heatmaps.detach().cpu(), gradient.cpu() / 2, network.stem_conv[1].running_var.cpu()]
torch.save(results, f'{folder}/{rank}.pt')
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='torch finds no GPU')
def test_syncbn_of_two_processes_normalises_by_both_batches(tmp_path, free_port, request):
    """Two processes on one GPU, which NCCL refuses and gloo does not."""
    torch.manual_seed(0)
    torch.backends.cudnn.allow_tf32, before = False, torch.backends.cudnn.allow_tf32
    network = StackedHourglass(num_stacks=1, depth=1, channels=16).cuda().train()
    image = torch.randn(4, 3, 64, 64)
    torch.save(network.state_dict(), tmp_path / 'weights.pt')
    torch.save(image, tmp_path / 'image.pt')
    (heatmaps,) = network(image.cuda())
    heatmaps.square().mean().backward()
    torch.backends.cudnn.allow_tf32 = before
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', SYNC_BN, str(rank), port, str(tmp_path)],
            cwd=request.config.rootpath,
            env={**os.environ, 'NVIDIA_TF32_OVERRIDE': '0'},
        )
        for rank in (0, 1)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    results = [torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1)]
    assert torch.allclose(torch.cat([result[0] for result in results]), heatmaps.detach().cpu(), atol=1e-4)
    for _, gradient, running_var in results:
        assert torch.allclose(
            gradient,
            network.stem_conv[0].weight.grad.cpu(),
            rtol=1e-2,
            atol=1e-3 * gradient.abs().max().item(),
        )
        assert torch.allclose(running_var, network.stem_conv[1].running_var.cpu(), rtol=1e-3)
