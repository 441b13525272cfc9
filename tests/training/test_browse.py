import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from hg_plugin.training.browse import Samples, browse
from hg_plugin.utils.config import read_config

CONFIG = Path(__file__).parents[2] / 'configs/hg_2stack_synthetic.py'
CODEC = dict(type='MSRAHeatmap', input_size=(128, 128), heatmap_size=(32, 32), sigma=2)
STOCK = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomFlip', direction='horizontal', prob=1.0),
    dict(type='TopdownAffine', input_size=(128, 128)),
    dict(type='GenerateTarget', encoder=CODEC),
    dict(type='PackPoseInputs'),
]
LEFT_WRIST = 15


@pytest.fixture
def persons(synthetic, tmp_path, edit):
    """Six training persons; the left wrist of the third is annotated far away."""
    folder = shutil.copytree(synthetic(6, 3), tmp_path / 'persons')
    with edit(folder / 'annotations/mpii_train.json') as people:
        people[2]['joints'][LEFT_WRIST] = [5000, 5000]
        people[2]['joints_vis'][LEFT_WRIST] = 1
    return folder


@pytest.fixture
def config(persons):
    return read_config(CONFIG, data_root=str(persons))


def test_samples_are_those_of_the_training(config):
    loader = {**config.train_dataloader, 'num_workers': 0, 'persistent_workers': False, 'batch_size': 6}
    (batch,) = Runner.build_dataloader(loader, seed=7)
    samples = list(Samples(config, seed=7))
    assert sorted(sample.index for sample in samples) == list(range(6))
    images = np.stack([sample.image for sample in samples])
    assert torch.equal(torch.from_numpy(images).permute(0, 3, 1, 2), batch['inputs'])
    keypoints = np.stack([sample.keypoints for sample in samples])
    np.testing.assert_allclose(keypoints, batch['data_samples']['keypoints'], rtol=1e-6)


@pytest.mark.parametrize('command', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_wrong_annotation_is_counted_and_named(config, persons, run, tmp_path, command):
    if command:
        options = '--data-root', persons, '--num', 6, '--out-dir', tmp_path
        out = run('-m', 'hg_plugin', 'browse', CONFIG, *options)
        assert '1 of 96 annotated joints in 6 samples' in out and '(left wrist 1)' in out, out
    else:
        state = np.random.get_state()[1].tolist()
        joints, num = browse(config, tmp_path / 'train.png', num=100)
        assert num == 6 and np.random.get_state()[1].tolist() == state
        assert {name: count for name, count in joints.items() if count[1]} == {'left wrist': [6, 1, 1]}
    sheet = cv2.imread(str(tmp_path / 'train.png'))
    assert sheet.shape[:2] == (20 + 2 * (224 + 20 + 6), 4 * (2 * 224 + 6))
    assert (sheet == (50, 50, 230)).all(axis=2)[20:].sum() > 20  # the cross


def test_stock_transforms_in_wrapped_datasets(config, persons):
    one = {**config.train_dataloader.dataset, 'data_root': str(persons), 'pipeline': STOCK}
    both = dict(type='ConcatDataset', datasets=[one, one])
    config.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=both)
    config.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=False)
    samples = list(Samples(config))
    assert len(samples) == 24
    for sample in samples[:2]:
        assert sample.targets.shape == (16, 32, 32) and Path(sample.path).exists()
        peaks = sample.targets.reshape(16, -1).argmax(axis=1)
        drawn = np.stack([peaks % 32, peaks // 32], axis=1) * 4
        seen = sample.annotated & (sample.weights > 0)
        assert np.abs(drawn - sample.keypoints)[seen].max() <= 2.5


def test_validation_has_the_targets_of_the_codec(config):
    samples = list(Samples(config, 'val'))
    assert len(samples) == 3
    for sample in samples:
        assert (sample.targets.max(axis=(1, 2)) > 0.9).tolist() == (sample.weights > 0).tolist()
        assert not sample.outside.any()
