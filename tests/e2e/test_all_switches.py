"""Every switch for speed and memory at once: bfloat16, checkpointing, channels_last, compilation, fused Adam,
EMA, two processes, an interruption."""

import pytest
import torch

# aot_eager traces forward and backward as inductor does, and then needs no compiler
SETTINGS = """
model['backbone'].update(with_cp={on}, channels_last={on})
optim_wrapper = dict(on_cpu={bfloat16}, optimizer=dict(fused={on}))
compile = dict(backend='aot_eager') if {compiled} else None
train_cfg = dict(max_epochs={epochs})
ema_type = 'ForeachEMA' if {on} else 'ExpMomentumEMA'
custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', ema_type=ema_type, momentum=0.01, gamma=2000)]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    'compiled, bfloat16, tolerance', [(False, False, 1e-3), (True, False, 1e-3), (True, True, 1e-2)]
)
def test_they_train_as_without_and_resume(train, run, persons, tmp_path, compiled, bfloat16, tolerance):
    def settings(on, epochs=2):
        return SETTINGS.format(on=on, bfloat16=bfloat16, compiled=on and compiled, epochs=epochs)

    plain, _ = train('plain', settings(False), processes=2)
    together, _ = train('all', settings(True), processes=2)
    assert sorted(plain) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert together == {step: pytest.approx(loss, rel=tolerance) for step, loss in plain.items()}
    a, b = (torch.load(tmp_path / name / 'epoch_2.pth') for name in ('plain', 'all'))
    assert a['ema_state_dict'].keys() == b['ema_state_dict'].keys()
    for key, value in a['ema_state_dict'].items():
        if 'running' in key or 'num_batches' in key:
            # of all processes; with MMPose's EMA, those of the averaged weights are the first process's
            for statistics in (b['ema_state_dict'][key], b['state_dict'][key[len('module.') :]]):
                assert torch.allclose(value.float(), statistics.float(), rtol=1e-2, atol=1e-3), key
    resumed, _ = train('all', settings(True, epochs=3), '--resume', processes=2)
    assert sorted(resumed) == [(3, 1), (3, 2)] and (tmp_path / 'all/epoch_3.pth').exists()
    folders = '--data-root', persons, '--work-dir', tmp_path / 'test'
    assert 'Mean' in run('tools/test.py', tmp_path / 'all.py', tmp_path / 'all/epoch_3.pth', *folders)
