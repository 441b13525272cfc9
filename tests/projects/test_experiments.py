import json
import sys

import numpy as np
import pytest
import race
import recipes
from card import persons_of
from mmengine.runner import Runner


@pytest.fixture
def config_of(monkeypatch, tmp_path):
    """Gives the function of an experiment that makes the config of a training."""

    def config_of(experiment, *options):
        found = []
        monkeypatch.setattr(experiment, 'run', lambda titles, args, config: found.append(config))
        monkeypatch.setattr(sys, 'argv', ['experiment', '--out', str(tmp_path), *options])
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
    rtmpose = config('rtmpose-s-stock', 'work_dirs/x')
    assert rtmpose.model.head.loss.type == 'KLDiscretLoss' and 'codec' not in rtmpose.model
    assert rtmpose.train_dataloader.dataset.pipeline[-2]['type'] == 'GenerateTarget'


def test_a_killed_race_resumes_with_the_time_that_is_left(config_of, synthetic, monkeypatch, tmp_path):
    config = config_of(race, '--data-root', str(synthetic(16, 4)), '--minutes', '1')
    monkeypatch.setattr(race, 'SAVE_EVERY', 0)

    def train(steps: int) -> race.ScheduleByTime:
        cfg = config('ours-2x64', str(tmp_path / 'work'))
        cfg.update(resume=True, experiment_name=f'race_{steps}')  # runs of one name share a message hub
        cfg.train_cfg.max_iters = steps
        runner = Runner.from_cfg(cfg)
        runner.train()
        return next(hook for hook in runner.hooks if isinstance(hook, race.ScheduleByTime))

    first, then = train(2), train(3)
    assert (first.steps, then.steps) == (2, 3) and then.peaks == first.peaks
    assert then.saved > first.saved > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    'script, options',
    [
        ('recipes.py', ['--images', '32', '--only', 'ours', 'color']),
        ('race.py', ['--minutes', '0.02', '--only', 'ours-2x64', 'rtmpose-s-stock']),
    ],
)
def test_an_experiment_leaves_a_table_and_repeats_nothing(run, synthetic, tmp_path, script, options):
    folders = '--data-root', synthetic(16, 4), '--out', tmp_path / 'out'
    for _ in range(2):
        assert 'failed' not in run(f'projects/learning/{script}', *options, *folders)
    rows = [json.loads(line) for line in (tmp_path / 'out/results.jsonl').read_text().splitlines()]
    assert [row['name'] for row in rows] == options[3:] and all(row['steps'] > 0 for row in rows)
    assert all(f'| {name} |' in (tmp_path / 'out/results.md').read_text() for name in options[3:])


def test_left_and_right_changed(random=np.random.default_rng(0)):
    truth = random.permutation(16).reshape(1, 16, 1).repeat(2, 2).astype(float) * 10
    found = truth.copy()
    found[:, [0, 5]] = found[:, [5, 0]]  # the ankles
    boxes = dict(head_size=np.array([10.0]), bboxes=np.zeros((1, 4)))
    sample = dict(id=3, img_path='a.jpg', input_center=np.zeros(2), input_scale=np.ones(2))
    sample['gt_instances'] = dict(keypoints=truth, keypoints_visible=np.ones((1, 16)), **boxes)
    sample['pred_instances'] = dict(keypoints=found)
    persons = persons_of([sample, sample])
    assert persons.ids.tolist() == [3, 3]
    sides = persons.sides().values()
    assert [place['left ankle'] for place in sides] == [0, 100, 0, 0]
    assert [place['left knee'] for place in sides] == [100, 0, 0, 0]
