import json
import sys

import pytest
import race
import recipes

from hg_plugin.prepare.synthetic import make_synthetic


@pytest.fixture
def config_of(monkeypatch, tmp_path):
    """Gives the function of an experiment that makes the config of a training."""

    def config_of(experiment):
        found = []
        monkeypatch.setattr(experiment, 'run', lambda titles, args, config: found.append(config))
        monkeypatch.setattr(sys, 'argv', ['experiment', '--out', str(tmp_path)])
        experiment.main()
        return found[0]

    return config_of


def test_a_trial_changes_what_it_names_and_nothing_else(config_of):
    config = config_of(recipes)
    configs = {name: config(name, 'work_dirs/x') for name in ('ours', 'sigma-3', 'adamw', 'rotation-60')}
    assert configs['ours'].model.head.loss.type == 'SpatialCrossEntropyLoss'
    assert configs['adamw'].optim_wrapper.optimizer.type == 'AdamW'
    assert configs['sigma-3'].model.codec.sigma == 3
    crop = configs['rotation-60'].train_dataloader.dataset.pipeline[1]
    assert crop.rotate_factor == 60
    configs['rotation-60'].train_dataloader.dataset.pipeline[1].rotate_factor = 30
    assert configs['rotation-60'].train_dataloader == configs['ours'].train_dataloader


def test_a_network_of_the_race_has_its_own_recipe(config_of):
    config = config_of(race)
    ours, stock = config('ours-2x64', 'work_dirs/x'), config('hourglass52-stock', 'work_dirs/x')
    assert (ours.train_dataloader.batch_size, stock.train_dataloader.batch_size) == (16, 64)
    assert stock.model.head.loss.type == 'KeypointMSELoss' and stock.model.backbone.type == 'HourglassNet'


@pytest.mark.slow
@pytest.mark.parametrize(
    'script, options',
    [
        ('recipes.py', ['--images', '32', '--only', 'ours', 'color']),
        ('race.py', ['--minutes', '0.02', '--only', 'ours-2x64']),
    ],
)
def test_an_experiment_leaves_a_table_and_repeats_nothing(run, tmp_path, script, options):
    make_synthetic(tmp_path / 'persons', num_train=16, num_val=4, seed=0, num_workers=1)
    folders = '--data-root', tmp_path / 'persons', '--out', tmp_path / 'out'
    for _ in range(2):
        code, out = run(f'projects/learning/{script}', *options, *folders)
        assert code == 0 and 'failed' not in out, out
    rows = [json.loads(line) for line in (tmp_path / 'out/results.jsonl').read_text().splitlines()]
    assert [row['name'] for row in rows] == options[3:] and all(row['steps'] > 0 for row in rows)
    assert all(f'| {name} |' in (tmp_path / 'out/results.md').read_text() for name in options[3:])
