import numpy as np
import pytest
import torch
from mmengine.dataset import default_collate, pseudo_collate
from mmengine.registry import MODELS
from mmpose.registry import KEYPOINT_CODECS
from mmpose.structures import PoseDataSample

from hg_plugin.models.heatmap_targets import draw_heatmaps
from hg_plugin.utils.errors import InputError

NORM = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
SIZES = dict(input_size=(192, 256), heatmap_size=(48, 64))
CODECS = [
    dict(type='MSRAHeatmap', sigma=2, **SIZES),
    dict(type='MSRAHeatmap', sigma=2.5, **SIZES),
    dict(type='MSRAHeatmap', sigma=2, unbiased=True, **SIZES),
    dict(type='UDPHeatmap', sigma=2, **SIZES),
]
codecs = pytest.mark.parametrize('codec', CODECS, ids=['msra', 'msra-2.5', 'unbiased', 'udp'])


def persons(num=24, num_keypoints=16):
    """Keypoints inside, at pixel boundaries, near each side, far outside; some not annotated."""
    rng = np.random.default_rng(0)
    keypoints = rng.uniform(-60, 320, (num, num_keypoints, 2)).astype(np.float32)
    keypoints[0] = np.round(keypoints[0] / 2) * 2  # on the boundary between two pixels of a heatmap
    keypoints[1, :4] = [[0, 0], [191, 255], [-26, 100], [-30, 100]]
    keypoints[1, 4:8] = [[216, 100], [100, -26], [100, 280], [1e5, -1e5]]
    visible = (rng.random((num, num_keypoints)) < 0.8).astype(np.float32)
    return keypoints, visible


@codecs
def test_targets_are_those_of_mmposes_codecs(codec):
    codec = KEYPOINT_CODECS.build(codec)
    keypoints, visible = persons()
    heatmaps, weights = draw_heatmaps(torch.from_numpy(keypoints), torch.from_numpy(visible), codec)
    for i in range(len(keypoints)):
        expected = codec.encode(keypoints[i : i + 1], visible[i : i + 1])
        assert np.allclose(heatmaps[i], expected['heatmaps'], atol=1e-5)
        assert np.array_equal(weights[i : i + 1], expected['keypoint_weights'])
    assert (weights < torch.from_numpy(visible)).any() and heatmaps.amax(dim=(2, 3)).gt(0.99).any()


@codecs
@pytest.mark.parametrize('visible', [0.0, 1.0])
def test_a_keypoint_that_is_nan_does_not_count(codec, visible):
    keypoints = torch.tensor([[[float('nan')] * 2, [90.0, float('inf')], [40.0, 50.0]]])
    visible = torch.tensor([[visible, visible, 1.0]])
    heatmaps, weights = draw_heatmaps(keypoints, visible, KEYPOINT_CODECS.build(codec))
    assert heatmaps.isfinite().all() and heatmaps.amax(dim=(2, 3)).gt(0).tolist() == [[False, False, True]]
    assert weights.tolist() == [[0, 0, 1]]


def test_a_visibility_below_a_half_is_a_weight_too():
    codec = KEYPOINT_CODECS.build(CODECS[0])
    heatmaps, weights = draw_heatmaps(torch.tensor([[[40.0, 50.0]]]), torch.tensor([[0.3]]), codec)
    assert heatmaps.max() > 0.9 and weights.item() == pytest.approx(0.3)


def test_images_of_different_sizes_are_refused():
    preprocessor = MODELS.build(dict(type='HeatmapDataPreprocessor'))
    with pytest.raises(InputError, match='shapes'):
        preprocessor(dict(inputs=[torch.zeros(3, 64, 64), torch.zeros(3, 64, 96)]))


def batch(num=4):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num, 3, 256, 192), generator=generator, dtype=torch.uint8)
    keypoints, visible = map(torch.from_numpy, persons(num))
    return [
        dict(inputs=image, data_samples=dict(keypoints=k, keypoints_visible=v))
        for image, k, v in zip(images, keypoints, visible)
    ]


@pytest.mark.parametrize('norm', [NORM, dict(mean=[0, 0, 0], std=[255] * 3)], ids=['NORM', 'whole numbers'])
def test_images_are_those_of_mmposes_preprocessor(norm):
    stock = MODELS.build(dict(type='PoseDataPreprocessor', **norm))
    ours = MODELS.build(dict(type='HeatmapDataPreprocessor', **norm))
    samples = [dict(inputs=sample['inputs'], data_samples=PoseDataSample()) for sample in batch()]
    expected = stock(pseudo_collate(samples))['inputs']
    for collate in (pseudo_collate, default_collate):
        data = collate(samples)
        before = torch.stack(tuple(data['inputs'])).clone()
        result = ours(data)
        assert torch.allclose(result['inputs'], expected, atol=1e-6)
        assert all(isinstance(sample, PoseDataSample) for sample in result['data_samples'])
        assert torch.equal(torch.stack(tuple(data['inputs'])), before)


@pytest.mark.parametrize(
    'settings', [dict(mean=[0, 0, 0]), dict(std=[1]), dict(mean=[0], std=[1, 1, 1])], ids=str
)
def test_mean_and_std_belong_together(settings):
    with pytest.raises(InputError, match='mean'):
        MODELS.build(dict(type='HeatmapDataPreprocessor', **settings))


def test_targets_come_with_the_images():
    codec = CODECS[0]
    preprocessor = MODELS.build(dict(type='HeatmapDataPreprocessor', encoder=codec, **NORM))
    keypoints, visible = map(torch.from_numpy, persons(4))
    heatmaps, weights = draw_heatmaps(keypoints, visible, KEYPOINT_CODECS.build(codec))
    for collate in (default_collate, pseudo_collate):
        targets = preprocessor(collate(batch()), training=True)['data_samples']
        assert torch.equal(targets['heatmaps'], heatmaps)
        assert torch.equal(targets['keypoint_weights'], weights)


@pytest.mark.parametrize(
    'encoder, message',
    [
        (dict(type='SimCCLabel', input_size=(192, 256)), 'SimCCLabel'),
        (dict(type='UDPHeatmap', heatmap_type='combined', **SIZES), 'gaussian'),
    ],
)
def test_what_cannot_be_drawn_is_refused(encoder, message):
    with pytest.raises(InputError, match=message):
        MODELS.build(dict(type='HeatmapDataPreprocessor', encoder=encoder))
