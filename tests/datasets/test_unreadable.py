"""Training images that cannot be read are replaced, in testing they are errors."""

import json
import shutil

import pytest
import torch
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.images import ImageError, read_regular_file


@pytest.fixture
def persons(synthetic, tmp_path):
    return shutil.copytree(synthetic(16, 8), tmp_path / 'persons')


@pytest.fixture
def load(persons, small_config):
    """The training or validation set of the synthetic config, with changes."""

    def load(phase='train', **changes):
        dataset = small_config(16, 8)[f'{phase}_dataloader'].dataset
        return DATASETS.build({**dataset, 'data_root': str(persons), **changes})

    return load


def image_of(persons, index, split='train'):
    annotations = json.loads((persons / f'annotations/mpii_{split}.json').read_text())
    return persons / 'images' / annotations[index]['image']


def test_in_training_the_next_person_takes_the_place_and_it_is_told_once(load, persons, damages, monkeypatch):
    for index, damage in enumerate(damages.values()):
        damage(image_of(persons, 2 * index))
    told = []
    monkeypatch.setattr('hg_plugin.datasets.mpii.print_log', lambda text, *_: told.append(text))
    dataset = load(max_unreadable=0.5)
    dataset.pipeline.transforms[1].scale_factor = (1, 1)
    for _ in range(2):
        for index in range(0, 14, 2):
            sample, following = dataset[index], dataset[index + 1]
            assert torch.equal(sample['inputs'], following['inputs'])
            assert torch.equal(*(each['data_samples']['keypoints'] for each in (sample, following)))
    assert dataset.unreadable.tolist() == [1, 0] * 7 + [0, 0]
    for index, text in zip(range(0, 14, 2), told, strict=True):
        assert f'mpii_train.json, annotation {index}: {image_of(persons, index)} ' in text


def test_in_testing_it_is_an_error(load, persons, damages):
    for index, damage in enumerate(damages.values()):
        damage(image_of(persons, index, 'val'))
    dataset = load('val')
    for index in range(len(damages)):
        name = image_of(persons, index, 'val').name
        with pytest.raises(InputError, match=f'mpii_val.json, annotation {index}: .*{name}'):
            dataset[index]


def test_too_many_end_the_training_in_one_sentence(load, persons, damages):
    for index in (1, 5, 7, 9, 11):
        damages['empty'](image_of(persons, index))
    dataset = load(max_unreadable=0.25)
    assert all(dataset[index] for index in (1, 5, 7, 9)) and dataset.unreadable.sum() == 4
    with pytest.raises(InputError, match='5 of the 16 persons of .* max_unreadable=0.25 .* annotation 1, /'):
        dataset[11]
    dataset = load()  # three, where 1 % is less
    assert all(dataset[index] for index in (1, 5, 7))
    with pytest.raises(InputError, match='4 of the 16 persons'):
        dataset[9]


def test_a_sample_takes_no_longer_among_many_persons(load):
    """Nothing in it is done for every person."""
    dataset = load()
    dataset.__class__ = type('Large', (type(dataset),), {'__len__': lambda self: 10**12})
    assert dataset.prepare_data(3)


@pytest.mark.parametrize('persistent', [True, False])
def test_workers_count_together(load, persons, damages, persistent):
    for index in (1, 2):
        damages['html'](image_of(persons, index))
    dataset = load(max_unreadable=0.5)
    loader = DataLoader(dataset, batch_size=1, num_workers=2, persistent_workers=persistent)
    for _ in range(2):
        assert len(list(loader)) == 16
        assert dataset.unreadable.tolist() == [0, 1, 1, *[0] * 13]


def test_no_visibility_weighs_a_loss(load, persons, edit):
    with edit(persons / 'annotations/mpii_train.json') as annotations:
        annotations[3]['joints_vis'] = [-1, 2, 255, 1e6, *[1] * 12]
    assert load()[3]['data_samples']['keypoints_visible'].tolist() == [0, *[1] * 15]


def test_no_device_is_read():
    with pytest.raises(ImageError, match='a folder, a pipe or a device'):
        read_regular_file('/dev/zero')
