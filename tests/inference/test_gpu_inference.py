"""Keypoints and PCKh from a GPU are a CPU's."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, METRICS, MODELS, init_default_scope
from mmengine.runner import Runner

from hg_plugin.apis import PoseEstimator
from hg_plugin.prepare.synthetic import make_synthetic

CONFIG = """
_base_ = ['{root}/configs/hg_2stack_synthetic.py']
data_root = '{data}'
model = dict(backbone=dict(channels=32, depth=2), test_cfg=dict(flip_test=True))
optim_wrapper = dict(optimizer=dict(lr=0.005))
loader = dict(num_workers=0, persistent_workers=False, pin_memory=False)
train_dataloader = dict(batch_size=10, **loader, dataset=dict(data_root=data_root))
val_dataloader = dict(batch_size=10, **loader, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
"""


@pytest.fixture(scope='module')
def trained(request, tmp_path_factory):
    """A config and the checkpoint of a network that knows its 40 validation persons: well from a GPU, a
    little from a CPU."""
    init_default_scope('mmpose')
    folder = tmp_path_factory.mktemp('trained')
    make_synthetic(folder / 'persons', num_train=1, num_val=40, seed=0, num_workers=1)
    (folder / 'config.py').write_text(CONFIG.format(root=request.config.rootpath, data=folder / 'persons'))
    cfg = Config.fromfile(folder / 'config.py')
    cfg.train_dataloader.dataset.update(
        ann_file='annotations/mpii_val.json',
        pipeline=[
            transform
            for transform in cfg.train_dataloader.dataset.pipeline
            if not transform.type.startswith('Random')
        ],
    )
    torch.manual_seed(0)
    model = MODELS.build(cfg.model).to('cuda' if torch.cuda.is_available() else 'cpu').train()
    optim_wrapper = build_optim_wrapper(model, dict(cfg.optim_wrapper, dtype=None))
    for _ in range(60 if torch.cuda.is_available() else 8):
        for batch in Runner.build_dataloader(cfg.train_dataloader, seed=0):
            model.train_step(batch, optim_wrapper)
    torch.save(dict(state_dict=model.state_dict()), folder / 'trained.pth')
    return folder / 'config.py', folder / 'trained.pth'


def pckh(config, checkpoint, device):
    """The ten figures, with the flip test, as tools/test.py finds them."""
    cfg = Config.fromfile(config)
    model = MODELS.build(cfg.model)
    model.load_state_dict(torch.load(checkpoint, map_location='cpu')['state_dict'])
    model.to(device).eval()
    loader = Runner.build_dataloader(cfg.test_dataloader)
    metric = METRICS.build(cfg.test_evaluator)
    metric.dataset_meta = loader.dataset.metainfo
    with torch.no_grad():
        for batch in loader:
            metric.process(batch, [sample.to_dict() for sample in model.test_step(batch)])
    return metric.evaluate(len(loader.dataset))


def test_pckh_is_the_cpus_to_a_tenth_of_a_point(trained, device):
    expected, found = pckh(*trained, 'cpu'), pckh(*trained, device)
    print(f'{device}: PCKh {found["Mean"]:.2f}, on the CPU {expected["Mean"]:.2f}')
    assert expected['Mean'] > (50 if torch.cuda.is_available() else 1)  # or nothing would be compared
    assert found['Mean'] == pytest.approx(expected['Mean'], abs=0.1)
    assert found['AUC'] == pytest.approx(expected['AUC'], abs=0.1)


@pytest.mark.parametrize('flip_test', [False, True])
def test_the_pose_estimators_keypoints_are_the_cpus(trained, device, flip_test):
    """But for maxima that two pixels share, or whose neighbours on both sides are equal: decoding moves to
    the larger by a quarter."""
    cfg = Config.fromfile(trained[0])
    dataset = DATASETS.build({**cfg.test_dataloader.dataset, 'pipeline': []})
    persons = [dataset.get_data_info(index) for index in range(len(dataset))]
    found = []
    for where in ('cpu', device):
        estimator = PoseEstimator(*trained, device=where)
        assert next(estimator.model.parameters()).device.type == where
        found.append(
            [
                np.concatenate(arrays)
                for arrays in zip(
                    *estimator.stream(
                        ((person['img_path'], person['bbox']) for person in persons), flip_test=flip_test
                    )
                )
            ]
        )
    (expected, expected_scores), (keypoints, scores) = found
    distance = np.linalg.norm(keypoints - expected, axis=-1)
    print(
        f'{device}: {np.mean(distance > 0.01):.2%} of the keypoints differ, '
        f'by at most {distance.max():.2f} pixels'
    )
    assert keypoints.shape == (40, 16, 2) and np.mean(distance > 0.01) < 0.01
    assert np.allclose(scores, expected_scores, atol=5e-3)
