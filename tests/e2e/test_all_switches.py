"""Every switch for speed and memory at once: bfloat16, checkpointing, channels_last, compilation, fused Adam,
EMA, two processes, an interruption."""

import os
import re
import subprocess
import sys

import pytest
import torch

from hg_plugin.prepare.synthetic import make_synthetic

# aot_eager traces forward and backward as inductor does, and then needs no compiler
CONFIG = """
_base_ = ['{root}/configs/hg_2stack_synthetic.py']
model = dict(backbone=dict(channels=8, depth=1, with_cp={on}, channels_last={on}))
optim_wrapper = dict(on_cpu={bfloat16}, optimizer=dict(fused={on}))
compile = dict(backend='aot_eager') if {compiled} else None
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False)
val_dataloader = dict(num_workers=0, persistent_workers=False)
train_cfg = dict(max_epochs=2)
custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', ema_type='{ema}', momentum=0.01, gamma=2000)]
default_hooks = dict(logger=dict(interval=1))
log_processor = dict(window_size=1)
"""


@pytest.fixture(scope='module')
def persons(tmp_path_factory):
    folder = tmp_path_factory.mktemp('synthetic')
    make_synthetic(folder, num_train=16, num_val=4, seed=0, num_workers=1)
    return folder


@pytest.fixture
def train(persons, tmp_path, free_port, request):

    def train(name, on, *arguments, bfloat16, compiled=False):
        ema = 'ForeachEMA' if on else 'ExpMomentumEMA'
        (tmp_path / f'{name}.py').write_text(
            CONFIG.format(root=request.config.rootpath, on=on, ema=ema, bfloat16=bfloat16, compiled=compiled)
        )
        result = subprocess.run(
            [
                'bash',
                'tools/dist_train.sh',
                str(tmp_path / f'{name}.py'),
                '2',
                '--data-root',
                str(persons),
                '--work-dir',
                str(tmp_path / name),
                *arguments,
            ],
            env={**os.environ, 'PORT': free_port(), 'PYTHON': sys.executable},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=400,
        )
        assert result.returncode == 0, result.stdout[-3000:]
        return {
            (int(epoch), int(step)): float(loss)
            for epoch, step, loss in re.findall(
                r'Epoch\(train\) +\[(\d)\]\[(\d)/2\].* loss: ([\d.]+)', result.stdout
            )
        }

    return train


@pytest.mark.parametrize(
    'compiled, bfloat16, tolerance',
    [
        pytest.param(False, False, 1e-3, marks=pytest.mark.slow),
        pytest.param(True, False, 1e-3, marks=pytest.mark.slow),
        pytest.param(True, True, 1e-2, marks=pytest.mark.slow),
    ],
)
def test_they_train_as_without_go_on_after_an_interruption_and_are_tested(
    train, run, persons, tmp_path, compiled, bfloat16, tolerance
):
    plain = train('plain', False, bfloat16=bfloat16)
    together = train('all', True, bfloat16=bfloat16, compiled=compiled)
    assert sorted(plain) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert together == {step: pytest.approx(loss, rel=tolerance) for step, loss in plain.items()}
    a, b = (torch.load(tmp_path / name / 'epoch_2.pth') for name in ('plain', 'all'))
    assert a['ema_state_dict'].keys() == b['ema_state_dict'].keys()
    for key, value in a['ema_state_dict'].items():
        if (
            'running' in key or 'num_batches' in key
        ):  # of all processes; with MMPose's EMA, those of the averaged weights are the first process's
            for statistics in (b['ema_state_dict'][key], b['state_dict'][key[len('module.') :]]):
                assert torch.allclose(value.float(), statistics.float(), rtol=1e-2, atol=1e-3), key
    resumed = train(
        'all',
        True,
        '--resume',
        '--cfg-options',
        'train_cfg.max_epochs=3',
        bfloat16=bfloat16,
        compiled=compiled,
    )
    assert sorted(resumed) == [(3, 1), (3, 2)] and (tmp_path / 'all/epoch_3.pth').exists()
    code, out = run(
        'tools/test.py',
        tmp_path / 'all.py',
        tmp_path / 'all/epoch_3.pth',
        '--data-root',
        persons,
        '--work-dir',
        tmp_path / 'test',
    )
    assert code == 0 and 'Mean' in out, out
