"""Trainings on bad images and bad numbers, through the command line: none ends with exit code 0 and spoiled
checkpoints."""

import json
import os
import re
import shutil

import pytest
import torch

from hg_plugin.utils.errors import TrainingDiverged

pytestmark = pytest.mark.slow

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
def persons(synthetic, tmp_path):
    return shutil.copytree(synthetic(24, 4), tmp_path / 'persons')


@pytest.fixture
def train(persons, tmp_path, run, launch, request):
    """Trains, with bad batches if told so, to this exit code, and returns the output and all checkpoints."""
    base, config = request.config.rootpath / 'configs/hg_2stack_synthetic.py', tmp_path / 'child.py'
    (tmp_path / 'spoil.py').write_text(SPOIL)

    def train(*options, spoil='first=0, last=0', more='', processes=1, resume=(), epochs=4, code=0):
        config.write_text(CHILD.format(base=base, spoil=spoil, more=more))
        arguments = ['--data-root', persons, '--work-dir', tmp_path / 'work', *resume]
        arguments += ['--cfg-options', *SMALL, f'train_cfg.max_epochs={epochs}', *options]
        env = dict(PYTHONPATH=os.pathsep.join([str(tmp_path), str(request.config.rootpath)]))
        if processes > 1:
            command = 'bash', 'tools/dist_train.sh', config, processes
            out = launch(*command, *arguments, code=code, **env).stdout
        else:
            out = run('tools/train.py', config, *arguments, code=code, **env)
        assert 'Traceback' not in out, out[-3000:]
        files = {file.name: torch.load(file) for file in (tmp_path / 'work').glob('*.pth')}
        for name, content in files.items():
            weights = {**content['state_dict'], **content.get('ema_state_dict', {})}
            states = content.get('optimizer', {}).get('state', {}).values()
            for value in (*weights.values(), *(value for state in states for value in state.values())):
                assert value.isfinite().all(), name
        return out, files

    return train


@pytest.mark.parametrize(
    'options, code, message',
    [
        (['optim_wrapper.optimizer.lr=1e30'], 86, 'Training has diverged: 20 steps in a row'),
        # finite, but so large that nothing is worth keeping
        (['optim_wrapper.optimizer.lr=1e6'], 1, 'epoch_4.pth was not written, because its weights are'),
        (['model.data_preprocessor.std=[0,0,0]'], 86, 'Training has diverged: 20 steps in a row'),
    ],
)
def test_a_hopeless_training_leaves_no_checkpoint_and_an_exit_code(train, options, code, message):
    out, files = train(*options, code=code)
    assert message in out and not files, out[-3000:]


def test_nan_from_the_third_epoch_on_keeps_the_checkpoints_before(train):
    out, files = train(spoil='first=26, last=1000', code=TrainingDiverged.EXIT_CODE)
    assert 'epoch_2.pth' in files and any(name.startswith('best_') for name in files)
    assert 'epoch_3.pth is not written, because the last 11 steps' in out
    assert 'The predicted heatmaps peak at nan' in out
    assert re.search('ERROR.*Training has diverged: .* resume from .*epoch_2.pth', out)
    out, files = train(resume=['--resume'])
    assert 'resumed epoch: 2' in out and 'epoch_4.pth' in files


def test_one_bad_batch_an_epoch_is_skipped_and_spoils_nothing(train):
    ema = "dict(type='EMAHook', ema_type='ForeachEMA')"
    out, files = train(spoil="first=6, last=1000, every=12, value=float('inf')", more=ema)
    assert '(4 since the start, 0 in a row); they were skipped.' in out
    assert 'ema_state_dict' in files['epoch_4.pth']
    # neither forgotten nor left at their initial values
    means = [v for k, v in files['epoch_4.pth']['state_dict'].items() if k.endswith('running_mean')]
    assert all((mean != 0).any() for mean in means)
    assert files['epoch_4.pth']['optimizer']['state'][0]['step'] == 44


def test_two_processes_skip_alike_when_one_has_a_bad_batch(train):
    out, files = train(spoil="first=3, last=1000, every=6, rank='1'", processes=2)
    assert '(4 since the start, 0 in a row)' in out and 'epoch_4.pth' in files


def test_two_processes_end_with_the_exit_code_of_divergence(train):
    spoil, code = "first=8, last=1000, rank='1'", TrainingDiverged.EXIT_CODE
    out, files = train(spoil=spoil, processes=2, epochs=8, code=code)
    assert out.count('ERROR') >= 1 and list(files) and 'epoch_8.pth' not in files


@pytest.fixture
def damage(persons, damages):
    """Damages images of training persons in one way each."""
    entries = json.loads((persons / 'annotations/mpii_train.json').read_text())
    images = [persons / 'images' / entry['image'] for entry in entries]

    def damage(*indices):
        for index, change in zip(indices, damages.values()):
            change(images[index])
        return [images[index].name for index in indices]

    return damage


def test_bad_images_are_replaced_told_once_and_counted(train, damage):
    names = damage(3, 11, 17)
    options = 'train_dataloader.dataset.max_unreadable=0.2', 'train_dataloader.num_workers=2'
    out, _ = train(*options, epochs=3)
    for index, name in zip((3, 11, 17), names):
        assert len(re.findall(f'annotation {index}: .*{name}', out)) == 1
    assert '3 of the 24 persons of' in out and '(12.50%) and were replaced by the next' in out


def test_more_bad_images_than_a_share_end_the_training(train, damage):
    damage(3, 8, 11, 17)
    out, files = train(epochs=3, code=1)
    assert '\nerror: 4 of the 24 persons of' in out and 'hg_plugin check CONFIG' in out
    assert 'preempted.pth' in files


def test_two_processes_count_bad_images_together(train, damage):
    """One for each in an epoch, or both for one: less than the share for a process alone in most cases."""
    damage(3, 11, 12, 17)
    out, _ = train('train_dataloader.dataset.max_unreadable=0.15', processes=2, epochs=9, code=1)
    assert 'error: 4 of the 24 persons of' in out
