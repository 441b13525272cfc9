from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from mmpose.structures import PoseDataSample

from hg_plugin.utils.errors import InputError

CONFIGS = Path(__file__).parents[2] / 'configs'


def build(type='HourglassPoseEstimator', **test_cfg):
    cfg = Config.fromfile(CONFIGS / 'hg_2stack_mpii.py')
    codec = dict(input_size=(96, 64), heatmap_size=(24, 16))
    backbone = dict(channels=16, depth=1)
    cfg.merge_from_dict(dict(model=dict(type=type, codec=codec, backbone=backbone, test_cfg=test_cfg)))
    if type == 'TopdownPoseEstimator':
        cfg.model.head.decoder = cfg.model.pop('codec')
    torch.manual_seed(0)
    return MODELS.build(cfg.model).eval()


@torch.no_grad()
def predict(model, count=3, as_samples=False):
    """Keypoints, scores and heatmaps, and the sizes of the batches that went through the network."""
    sizes = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    crop = dict(input_size=(96, 64), input_center=np.full(2, 64.0), input_scale=np.full(2, 128.0))
    sample = PoseDataSample(metainfo=dict(flip_indices=list(range(16))[::-1], **crop))
    sample.gt_instances = InstanceData(bboxes=np.zeros((1, 4)), bbox_scores=np.ones(1))
    samples = [sample.clone() for _ in range(count)]
    images = torch.randn(count, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    results = model(images, samples, mode='predict')
    if as_samples:
        return results
    instances = [sample.pred_instances for sample in results]
    arrays = [np.stack([each[name] for each in instances]) for name in ('keypoints', 'keypoint_scores')]
    if model.test_cfg.get('output_heatmaps', False):
        arrays.append(np.stack([sample.pred_fields.heatmaps for sample in results]))
    return arrays, sizes


@pytest.mark.parametrize('output_heatmaps', [False, True])
@pytest.mark.parametrize('flip_test', [False, True])
@pytest.mark.parametrize('shift_heatmap', [False, True])
def test_one_batch_predicts_what_mmposes_two_passes_predict(flip_test, output_heatmaps, shift_heatmap):
    options = dict(flip_test=flip_test, output_heatmaps=output_heatmaps, shift_heatmap=shift_heatmap)
    expected, two = predict(build('TopdownPoseEstimator', **options))
    found, one = predict(build(**options))
    assert (two, one) == (([3, 3], [6]) if flip_test else ([3], [3]))
    assert len(found) == len(expected) == 2 + output_heatmaps
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(b).max())


@pytest.mark.parametrize('flip_test', [False, True])
def test_keypoints_of_every_stage(flip_test):
    model = build(flip_test=flip_test, stage_keypoints=True)
    samples = predict(model, as_samples=True)
    stages = np.concatenate([sample.pred_instances.stage_keypoints for sample in samples])
    assert stages.shape == (3, 2, 16, 2)
    last = np.concatenate([sample.pred_instances.keypoints for sample in samples])
    np.testing.assert_allclose(stages[:, 1], last)
    assert np.abs(stages[:, 0] - last).max() > 1

    first = build(flip_test=flip_test)
    with torch.no_grad():  # the same network, asked for its first stage alone
        first.head.forward = lambda feats: [feats[0]]
    np.testing.assert_allclose(stages[:, 0], predict(first)[0][0][:, 0], atol=1e-4)


def test_two_passes_where_asked_for():
    expected = predict(build('TopdownPoseEstimator', flip_test=True))
    np.testing.assert_equal(predict(build(flip_test=True, flip_in_one_batch=False)), expected)
    assert expected[1] == [3, 3]


def test_the_codec_of_the_model_draws_targets_and_decodes_unless_a_part_has_its_own():
    cfg = Config.fromfile(CONFIGS / 'hg_2stack_mpii.py')
    cfg.merge_from_dict({'model.codec.sigma': 3, 'model.backbone.depth': 1})
    model = MODELS.build(cfg.model)
    assert model.head.decoder.sigma == model.data_preprocessor.encoder.sigma == 3
    own = dict(cfg.model.codec, sigma=1)
    cfg.merge_from_dict({'model.head.decoder': own, 'model.data_preprocessor.encoder': None})
    model = MODELS.build(cfg.model)
    assert model.head.decoder.sigma == 1 and model.data_preprocessor.encoder is None
    cfg.model.data_preprocessor = dict(type='PoseDataPreprocessor')  # takes no encoder
    MODELS.build(cfg.model)


def test_the_head_has_as_many_stages_and_channels_as_the_backbone():
    cfg = Config.fromfile(CONFIGS / 'hg_2stack_mpii.py')
    cfg.merge_from_dict({'model.backbone': dict(num_stacks=3, num_keypoints=5, depth=1, channels=16)})
    head = MODELS.build(cfg.model).head
    assert head.num_stages == 3 and head.out_channels == 5
    cfg.model.head.num_stages = 1  # one's own number stays
    assert MODELS.build(cfg.model).head.num_stages == 1


@pytest.mark.parametrize('mode', ['tensor', 'loss', 'predict'])
def test_images_of_another_size_than_the_codecs_are_refused(mode):
    with pytest.raises(InputError, match='128x64 .*input_size=.96, 64.'):
        build()(torch.zeros(1, 3, 64, 128), [], mode=mode)
