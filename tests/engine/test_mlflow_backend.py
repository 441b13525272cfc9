from types import SimpleNamespace

import numpy as np
from mmengine.config import Config

from hg_plugin.engine import SafeMLflowVisBackend
from hg_plugin.training.runner import load_config


def test_names_are_those_that_mlflow_takes():
    backend, calls = SafeMLflowVisBackend.__new__(SafeMLflowVisBackend), []
    backend._env_initialized = True
    backend._mlflow = SimpleNamespace(
        log_image=lambda image, name: calls.append(name),
        log_metric=lambda name, value, step: calls.append(name),
        log_metrics=lambda values, step: calls.extend(values),
    )
    backend.add_image('val_person0', np.zeros((2, 2, 3), np.uint8), 5)
    backend.add_scalar('stage0/Mean', 1.0, 5)
    backend.add_scalars({'Mean@0.1': 1.0, 'coco/AP .5': 2.0}, 5)
    assert calls == ['val_person0_5.png', 'stage0/Mean', 'Mean_at_0.1', 'coco/AP_.5']


def test_a_config_with_mlflow_gets_it(tmp_path):
    backends = [dict(type='LocalVisBackend'), dict(type='MLflowVisBackend', exp_name='a')]
    cfg = Config(dict(model={}, visualizer=dict(type='Visualizer', vis_backends=backends)))
    cfg = load_config(cfg, work_dir=str(tmp_path))
    assert [each.type for each in cfg.visualizer.vis_backends] == ['LocalVisBackend', 'SafeMLflowVisBackend']
