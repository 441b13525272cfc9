"""Keypoints and PCKh from a GPU are a CPU's."""

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner

from hg_plugin.apis import PoseEstimator
from hg_plugin.utils.config import read_config
from hg_plugin.utils.weights import config_and_checkpoint


@pytest.fixture(scope='module')
def trained(real_data):
    """The config of the network of the package on 40 validation persons, and its checkpoint."""
    config, checkpoint = config_and_checkpoint(None, None)
    options = dict(num_workers=0, persistent_workers=False, pin_memory=False, dataset=dict(indices=40))
    options = {'test_dataloader': options, 'model.backbone.channels_last': False}
    return read_config(config, data_root=str(real_data('lspet_mpii')), cfg_options=options), checkpoint


def pckh(cfg, checkpoint, device):
    """The ten figures, with the flip test, as tools/test.py finds them."""
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
    assert expected['Mean'] > 50  # or nothing would be compared
    assert found['Mean'] == pytest.approx(expected['Mean'], abs=0.1)
    assert found['AUC'] == pytest.approx(expected['AUC'], abs=0.1)


@pytest.mark.parametrize('flip_test', [False, True])
def test_the_pose_estimators_keypoints_are_the_cpus(trained, device, flip_test):
    """But for maxima that two pixels share, or whose neighbours on both sides are equal: decoding moves to
    the larger by a quarter."""
    dataset = DATASETS.build({**trained[0].test_dataloader.dataset, 'pipeline': []})
    persons = [dataset.get_data_info(index) for index in range(len(dataset))]
    found = []
    for where in ('cpu', device):
        estimator = PoseEstimator(*trained, device=where)
        assert next(estimator.model.parameters()).device.type == where
        images = ((person['img_path'], person['bbox']) for person in persons)
        keypoints, scores = zip(*estimator.stream(images, flip_test=flip_test))
        found.append((np.concatenate(keypoints), np.concatenate(scores)))
    (expected, expected_scores), (keypoints, scores) = found
    moved = np.linalg.norm(keypoints - expected, axis=-1) > 0.01
    print(f'{device}: {moved.mean():.2%} of the keypoints differ')
    assert keypoints.shape == (40, 16, 2) and moved.mean() < 0.01
    assert np.allclose(scores, expected_scores, atol=5e-3)
