"""Steps, last batches and schedules of a training, on a dataset of so many images."""

import logging
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.registry import MODELS
from torch.utils.data import DataLoader

from hg_plugin.datasets import SeededInfiniteSampler
from hg_plugin.training.length_check import check_length
from hg_plugin.utils.errors import InputError


class Data(list):
    """A list, which a sampler can give a method."""


@pytest.fixture
def check(caplog):
    """Checks a training, and returns what it warns of."""

    def check(images=40, epochs=20, schedule=(), size=64, sampler=DefaultSampler, **loader):
        model = Config.fromfile('configs/hg_1stack_mpii.py').model
        model.backbone.update(channels=4, depth=4, stem_channels=(4, 4, 4, 4))
        model.codec.update(input_size=(size, size), heatmap_size=(size // 4, size // 4))
        data = Data(range(images))
        loader = DataLoader(data, sampler=sampler(data, seed=0), **loader)
        runner = SimpleNamespace(
            train_loop=SimpleNamespace(dataloader=loader, max_epochs=epochs, max_iters=epochs * len(loader)),
            model=MODELS.build(model),
            logger=logging.getLogger(),
            cfg=Config(dict(param_scheduler=schedule)),
        )
        before = {name: value.clone() for name, value in runner.model.state_dict().items()}
        caplog.clear()
        check_length(runner)
        assert all(torch.equal(value, before[name]) for name, value in runner.model.state_dict().items())
        return caplog.text

    return check


def test_an_epoch_without_a_step_is_refused(check):
    with pytest.raises(InputError, match='no step.* 40 images.* 64'):
        check(batch_size=64, drop_last=True)
    check(batch_size=64)
    check(batch_size=64, drop_last=True, sampler=SeededInfiniteSampler)


@pytest.mark.parametrize('batch_size', [1, 3, 13])
def test_a_batch_of_one_is_refused_where_batch_norm_has_one_value(check, batch_size):
    with pytest.raises(InputError, match='batch of one'):
        check(images=40, batch_size=batch_size)
    check(images=40, batch_size=batch_size, size=128)  # 2x2 values
    if batch_size > 1:
        check(images=40, batch_size=batch_size, drop_last=True)
        check(images=41, batch_size=batch_size)


WARM_UP = dict(type='LinearLR', start_factor=0.001, begin=0, end=500, by_epoch=False)


@pytest.mark.parametrize(
    'schedule, words',
    [
        ([WARM_UP], ['500 iterations', 'training has 40']),
        ([dict(WARM_UP, end=40)], []),
        ([dict(type='MultiStepLR', milestones=[10, 20, 170], end=210)], ['171 epochs', 'has 20']),
        ([dict(type='MultiStepLR', milestones=[10, 19], end=210)], []),
        ([dict(type='CosineAnnealingLR', begin=0, end=30, T_max=30)], ['takes 30 epochs', '20']),
        ([dict(type='ReduceOnPlateauLR', monitor='Mean', rule='greater')], []),
        (dict(optimizer=[WARM_UP]), ['500 iterations']),
    ],
)
def test_schedules_that_outlast_the_training_are_warned_of(check, schedule, words):
    warned = check(images=40, epochs=20, batch_size=20, schedule=schedule)
    assert all(word in warned for word in words) and bool(warned) == bool(words)
