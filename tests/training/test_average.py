import pytest
import torch
from mmengine.registry import MODELS

from hg_plugin.training.average import average_checkpoints
from hg_plugin.utils.config import read_config
from hg_plugin.utils.errors import InputError

CONFIG = 'configs/hg_2stack_synthetic.py'
OPTIONS = {'train_dataloader.num_workers': 0, 'train_dataloader.batch_size': 4}


@pytest.fixture
def checkpoints(tmp_path):
    """The paths of two, and their state dicts."""
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        states.append(MODELS.build(read_config(CONFIG).model).state_dict())
        meta = dict(dataset_meta=dict(dataset_name=f'data {seed}'), epoch=3)
        torch.save(dict(state_dict=states[-1], meta=meta), tmp_path / f'{seed}.pth')
    return [str(tmp_path / f'{seed}.pth') for seed in (0, 1)], states


def test_parameters_are_averaged_and_statistics_measured(run, checkpoints, synthetic, tmp_path):
    persons = synthetic(12, 2)
    paths, (first, second) = checkpoints
    settings = dict(shares=[3, 1], batches=2, data_root=str(persons), cfg_options=OPTIONS)
    average_checkpoints(CONFIG, paths, tmp_path / 'full.pth', **settings)
    command = ['-m', 'hg_plugin', 'average_checkpoints', CONFIG, *paths, '--out', tmp_path / 'half.pth']
    command += ['--half', '--shares', 3, 1, '--batches', 2, '--data-root', persons, '--cfg-options']
    assert '2/2 batches' in run(*command, *(f'{name}={value}' for name, value in OPTIONS.items()))
    full, half = (torch.load(tmp_path / f'{name}.pth') for name in ('full', 'half'))
    assert full['meta'] == half['meta'] == dict(dataset_meta=dict(dataset_name='data 0'))
    full, half = full['state_dict'], half['state_dict']

    parameters = dict(MODELS.build(read_config(CONFIG).model).named_parameters())
    assert full.keys() == first.keys()
    for name, value in full.items():
        if name in parameters:
            torch.testing.assert_close(value, 0.75 * first[name] + 0.25 * second[name])
            torch.testing.assert_close(half[name], value.half())
        elif name.endswith('num_batches_tracked'):
            assert value == 2
        else:
            assert not torch.equal(value, first[name])
            torch.testing.assert_close(half[name], value)  # the same images again


def test_shares_that_do_not_match(checkpoints, tmp_path):
    with pytest.raises(InputError, match='shares'):
        average_checkpoints(CONFIG, checkpoints[0], tmp_path / 'out.pth', shares=[1])
    assert not (tmp_path / 'out.pth').exists()
