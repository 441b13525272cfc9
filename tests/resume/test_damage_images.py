"""Trainings with images that cannot be read, through the command line."""

import json
import re
import shutil
import sys

import pytest

pytestmark = pytest.mark.slow

CONFIG = 'configs/hg_2stack_synthetic.py'
SMALL = ['model.backbone.channels=8', 'train_dataloader.batch_size=2', 'default_hooks.logger.interval=2']


@pytest.fixture
def persons(synthetic, tmp_path):
    return shutil.copytree(synthetic(24, 4), tmp_path / 'persons')


@pytest.fixture
def train(persons, tmp_path, launch):
    def train(*options, processes=1):
        tool = [sys.executable, 'tools/train.py', CONFIG]
        if processes > 1:
            tool = ['bash', 'tools/dist_train.sh', CONFIG, processes]
        folders = '--data-root', persons, '--work-dir', tmp_path / 'work'
        result = launch(*tool, *folders, '--cfg-options', *SMALL, *options)
        assert 'Traceback' not in result.stdout, result.stdout[-3000:]
        return result.returncode, result.stdout

    return train


def image_of(persons, index, split='train'):
    annotations = json.loads((persons / f'annotations/mpii_{split}.json').read_text())
    return persons / 'images' / annotations[index]['image']


@pytest.fixture
def damage(persons, damages):
    def damage(*indices, split='train'):
        for index, change in zip(indices, damages.values()):
            change(image_of(persons, index, split))

    return damage


@pytest.mark.parametrize('workers', [0, 2])
def test_bad_images_are_replaced_told_once_and_counted(train, persons, damage, workers):
    damage(3, 11, 17)
    loader = ['train_dataloader.num_workers=2'] if workers else ['train_dataloader.num_workers=0']
    loader += ['train_dataloader.dataset.max_unreadable=0.2', 'train_cfg.max_epochs=3']
    code, out = train(*loader, f'train_dataloader.persistent_workers={bool(workers)}')
    assert code == 0, out[-3000:]
    for index in (3, 11, 17):
        assert len(re.findall(f'annotation {index}: .*{image_of(persons, index).name}', out)) == 1
    assert '3 of the 24 persons of' in out and '(12.50%) and were replaced by the next' in out


def test_more_than_a_share_end_the_training(train, persons, damage):
    damage(3, 8, 11, 17)
    code, out = train('train_cfg.max_epochs=3')
    assert code == 1 and '\nerror: 4 of the 24 persons of' in out and 'hg_plugin check CONFIG' in out
    assert (persons.parent / 'work/preempted.pth').exists()


def test_two_processes_count_together(train, damage):
    """One for each in an epoch, or both for one: less than the share for a process alone in most cases."""
    damage(3, 11, 12, 17)
    code, out = train('train_cfg.max_epochs=9', 'train_dataloader.dataset.max_unreadable=0.15', processes=2)
    assert code == 1 and 'error: 4 of the 24 persons of' in out


def test_a_bad_image_in_testing_is_an_error(train, damage):
    damage(2, split='val')
    code, out = train('train_cfg.max_epochs=1')
    assert code == 1 and re.search('error: .*mpii_val.json, annotation 2: .* is a folder, a pipe', out)
