"""Trainings that diverge, through the command line: none ends with exit code 0 and spoiled checkpoints."""

import os
import re

import pytest
import torch

from hg_plugin.utils.errors import TrainingDiverged

pytestmark = pytest.mark.slow

CONFIG = 'configs/hg_2stack_synthetic.py'
SMALL = [
    'model.backbone.channels=8',
    'train_dataloader.batch_size=2',
    *(f'{phase}_dataloader.num_workers=0' for phase in ('train', 'val')),
    *(f'{phase}_dataloader.persistent_workers=False' for phase in ('train', 'val')),
    'default_hooks.logger.interval=5',
]
# 12 iterations an epoch; SPOIL holds the first and last iteration with a bad image, and whose
SPOIL = """
import os
import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

@HOOKS.register_module()
class SpoilHook(Hook):
    def __init__(self, first, last, every=1, value=float('nan'), rank='0'):
        self.first, self.last, self.every, self.value, self.rank = first, last, every, value, rank

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        step = runner.iter + 1
        spoil = self.first <= step <= self.last and (step - self.first) % self.every == 0
        if spoil and os.environ.get('RANK', '0') == self.rank:
            data_batch['inputs'] = data_batch['inputs'].float()
            data_batch['inputs'][0, :, 60:70] = self.value
"""
CHILD = """
_base_ = ['{base}']
custom_imports = dict(imports=['hg_plugin', 'spoil'], allow_failed_imports=False)
custom_hooks = [
    dict(type='SyncBuffersHook'), dict(type='SpoilHook', {spoil}), {more}
]
default_hooks = dict(divergence=dict(collapse=dict(interval=10)))
"""


@pytest.fixture
def train(synthetic, tmp_path, run, launch, request):
    """Trains, with bad images if told so, and returns the exit code, the output and all checkpoints."""
    (tmp_path / 'spoil.py').write_text(SPOIL)

    def train(*options, spoil='', more='', launcher=None, resume=()):
        config = CONFIG
        if spoil:
            config = tmp_path / 'child.py'
            config.write_text(CHILD.format(base=request.config.rootpath / CONFIG, spoil=spoil, more=more))
        arguments = ['--data-root', synthetic(24, 4), '--work-dir', tmp_path / 'work', *resume]
        arguments += ['--cfg-options', *SMALL, 'train_cfg.max_epochs=4', *options]
        path = os.pathsep.join([str(tmp_path), str(request.config.rootpath)])
        if launcher:
            result = launch('bash', launcher, config, 2, *arguments, PYTHONPATH=path)
            code, out = result.returncode, result.stdout
        else:
            code, out = run('tools/train.py', config, *arguments, PYTHONPATH=path)
        assert 'Traceback' not in out, out[-3000:]
        files = {file.name: torch.load(file) for file in (tmp_path / 'work').glob('*.pth')}
        for name, content in files.items():
            for key in ('state_dict', 'ema_state_dict'):
                for weight, value in content.get(key, {}).items():
                    assert value.isfinite().all(), (name, weight)
            for state in content.get('optimizer', {}).get('state', {}).values():
                assert all(value.isfinite().all() for value in state.values()), name
        return code, out, files

    return train


@pytest.mark.parametrize(
    'options, code, message',
    [
        (['optim_wrapper.optimizer.lr=1e30'], 86, 'Training has diverged: 20 steps in a row'),
        (['optim_wrapper.optimizer.lr=1e39'], 86, 'Training has diverged: 20 steps in a row'),
        # finite, but so large that nothing is worth keeping
        (['optim_wrapper.optimizer.lr=1e6'], 1, 'epoch_4.pth was not written, because its weights are'),
        (['model.data_preprocessor.std=[0,0,0]'], 86, 'Training has diverged: 20 steps in a row'),
    ],
)
def test_a_hopeless_training_leaves_no_checkpoint_and_an_exit_code(train, options, code, message):
    found, out, files = train(*options)
    assert found == code and message in out, out[-3000:]
    assert not files


def test_nan_from_the_third_epoch_on_keeps_the_checkpoints_before(train):
    code, out, files = train(spoil='first=26, last=1000')
    assert code == TrainingDiverged.EXIT_CODE
    assert 'epoch_2.pth' in files and any(name.startswith('best_') for name in files)
    assert 'epoch_3.pth is not written, because the last 11 steps' in out
    assert 'The predicted heatmaps peak at nan' in out
    assert re.search('ERROR.*Training has diverged: .* resume from .*epoch_2.pth', out)
    code, out, files = train(resume=['--resume'])
    assert code == 0 and 'resumed epoch: 2' in out and 'epoch_4.pth' in files


@pytest.mark.parametrize('value', ['nan', 'inf'])
def test_one_bad_batch_an_epoch_is_skipped_and_spoils_nothing(train, value):
    ema = "dict(type='EMAHook', ema_type='ForeachEMA')"
    code, out, files = train(spoil=f"first=6, last=1000, every=12, value=float('{value}')", more=ema)
    assert code == 0, out[-3000:]
    assert '(4 since the start, 0 in a row); they were skipped.' in out
    assert 'ema_state_dict' in files['epoch_4.pth']
    # neither forgotten nor left at their initial values
    means = [v for k, v in files['epoch_4.pth']['state_dict'].items() if k.endswith('running_mean')]
    assert all((mean != 0).any() for mean in means)
    assert files['epoch_4.pth']['optimizer']['state'][0]['step'] == 44


def test_two_processes_skip_alike_when_one_has_a_bad_batch(train):
    spoil = "first=3, last=1000, every=6, rank='1'"
    code, out, files = train(spoil=spoil, launcher='tools/dist_train.sh')
    assert code == 0, out[-3000:]
    assert '(4 since the start, 0 in a row)' in out and 'epoch_4.pth' in files


def test_two_processes_end_with_the_exit_code_of_divergence(train):
    spoil = "first=8, last=1000, rank='1'"
    code, out, files = train('train_cfg.max_epochs=8', spoil=spoil, launcher='tools/dist_train.sh')
    assert code == TrainingDiverged.EXIT_CODE, out[-3000:]
    assert out.count('ERROR') >= 1 and list(files) and 'epoch_8.pth' not in files
