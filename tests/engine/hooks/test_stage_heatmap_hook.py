"""Persons are drawn during training, and the training is the same."""

from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS
from mmpose.visualization import PoseLocalVisualizer
from torch import nn
from torch.nn import functional
from toy_training import forget_runners

from hg_plugin import apis
from hg_plugin.engine.hooks import StageHeatmapHook


@pytest.fixture(scope='module')
def config(small_config):
    cfg = small_config(
        *(4, 3),
        train_cfg=dict(max_epochs=2, val_interval=2),
        model=dict(backbone=dict(channels=4, depth=1, stem_channels=(4, 4, 4, 4))),
        default_hooks=dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=1)),
    )
    cfg.custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=0.1)]
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    return cfg


class Images(list):
    """A visualizer that keeps its images."""

    def add_image(self, name, image, step):
        self.append((name, image, step))


@pytest.fixture
def runner(config):
    """What the hook needs of a runner, in its third epoch and tenth iteration."""
    dataset = DATASETS.build({**config.val_dataloader.dataset, 'lazy_init': False})
    return SimpleNamespace(
        model=MODELS.build(config.model).train(),
        val_loop=object(),
        val_dataloader=SimpleNamespace(dataset=dataset),
        visualizer=Images(),
        logger=Mock(),
        epoch=2,
        iter=9,
    )


def states(model):
    return [
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
        [module.training for module in model.modules()],
        [tensor.tolist() for tensor in model.state_dict().values()],
    ]


def test_every_person_is_an_image_and_the_training_does_not_notice(runner):
    # random numbers, running statistics and a frozen norm are there to be changed
    runner.model.backbone.register_forward_hook(
        lambda module, _, outputs: [functional.dropout2d(x, 0.2, module.training) for x in outputs]
    )
    next(m for m in runner.model.modules() if isinstance(m, nn.BatchNorm2d)).eval()
    before = states(runner.model)
    hook = StageHeatmapHook(interval=3, persons=2)
    hook.after_train_iter(runner, 0)
    hook.after_train_epoch(runner)
    assert states(runner.model) == before
    assert [(name, step) for name, _, step in runner.visualizer] == [('val_person0', 3), ('val_person2', 3)]
    for _, image, _ in runner.visualizer:
        assert image.dtype == np.uint8 and image.shape == (2 * 256 + 20 + 4, 3 * (256 + 4), 3)
    runner.epoch = 3
    hook.after_train_epoch(runner)
    assert len(runner.visualizer) == 2
    # by iterations, of a chosen person
    hook = StageHeatmapHook(interval=5, persons=[1], by_epoch=False)
    hook.after_train_epoch(runner)
    hook.after_train_iter(runner, 0)
    assert [(name, step) for name, _, step in runner.visualizer[2:]] == [('val_person1', 10)]


def test_a_network_without_heatmaps_is_left_alone(runner):
    runner.model.head.decoder = None
    hook = StageHeatmapHook()
    hook.after_train_epoch(runner)
    hook.after_train_epoch(runner)
    assert runner.logger.warning.call_count == 1 and not runner.visualizer
    runner.val_loop = None
    StageHeatmapHook().after_train_epoch(runner)
    assert runner.logger.warning.call_count == 1


@pytest.mark.slow
def test_tensorboard(config, tmp_path):
    accumulator = pytest.importorskip('tensorboard.backend.event_processing.event_accumulator')
    forget_runners()
    PoseLocalVisualizer._instance_dict.clear()
    cfg = Config(config.to_dict())
    cfg.custom_hooks.append(dict(type='StageHeatmapHook', persons=2))
    cfg.visualizer.vis_backends = [dict(type='TensorboardVisBackend')]
    apis.train(cfg, work_dir=str(tmp_path))
    PoseLocalVisualizer.get_current_instance().close()
    (events,) = tmp_path.rglob('events.out.tfevents*')
    reader = accumulator.EventAccumulator(str(events))
    reader.Reload()
    assert sorted(reader.Tags()['images']) == ['val_person0', 'val_person2']
    assert [image.step for image in reader.Images('val_person0')] == [1, 2]
