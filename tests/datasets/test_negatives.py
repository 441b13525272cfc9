import numpy as np
import pytest
import torch
from mmengine.registry import MODELS, TRANSFORMS
from mmpose.registry import KEYPOINT_CODECS

from hg_plugin.datasets import MPIIPoseDataset, RandomNegative, TopdownCrop
from hg_plugin.models.heatmap_targets import draw_heatmaps

SIZE = (64, 64)


@pytest.fixture(params=['background', 'large', 'part'])
def kind(request):
    return request.param


@pytest.fixture
def persons(real_data):
    dataset = MPIIPoseDataset(
        'annotations/mpii_train.json',
        data_root=str(real_data('lspet_mpii')),
        pipeline=[dict(type='GetBBoxCenterScale')],
        indices=20,
    )
    np.random.seed(0)
    return [dataset[index] for index in range(len(dataset))]


def test_a_window_of_each_kind_does_not_hold_a_person_of_its_size(persons, kind):
    negative, crop = RandomNegative(prob=1, kinds={kind: 1.0}), TopdownCrop(SIZE)
    count = 0
    for person in persons:
        visible = person['keypoints_visible'].copy()
        results = negative(dict(person))
        assert np.array_equal(person['keypoints_visible'], visible)  # the dataset keeps its own
        if results['keypoints_visible'].max() > 0:
            assert kind == 'background'  # the person fills the image
            continue
        count += 1
        assert np.array_equal(results['keypoints_visible'], -0.5 * visible)
        ratio = (results['bbox_scale'] / person['bbox_scale']).max()
        results = crop(results)
        assert results['img'].shape == (*SIZE, 3) and results['img'].any()
        points = results['transformed_keypoints']
        inside = ((points >= 0) & (points < 64)).all(axis=2)
        if kind == 'background':
            assert inside[visible > 0].sum() <= 3
        assert {'background': 0.4 <= ratio <= 1.2, 'large': 2 <= ratio, 'part': ratio <= 0.35}[kind]
    assert count > 10


def test_absent_keypoints_get_an_even_target_that_counts():
    codec = KEYPOINT_CODECS.build(dict(type='UDPHeatmap', input_size=SIZE, heatmap_size=(16, 16), sigma=2))
    keypoints = torch.full((1, 3, 2), 32.0)
    heatmaps, weights = draw_heatmaps(keypoints, torch.tensor([[1.0, -0.5, 0.0]]), codec)
    assert heatmaps.amax(dim=(2, 3)).gt(0.9).tolist() == [[True, False, False]]
    assert weights.tolist() == [[1, 0.5, 0]]
    loss = MODELS.build(dict(type='SpatialCrossEntropyLoss'))
    output = torch.zeros(1, 3, 16, 16, requires_grad=True)
    output.data[0, 1:, 5, 5] = 4  # two peaks where nothing is
    loss(output, heatmaps, weights).backward()
    absent, unannotated = output.grad[0, 1], output.grad[0, 2]
    assert absent[5, 5] > 0 and absent.sum().abs() < 1e-6 and not unannotated.any()


def test_occlusion_moves_pixels_of_the_image_alone():
    image = np.random.default_rng(0).integers(1, 256, (32, 48, 3), dtype=np.uint8)
    results = TRANSFORMS.build(dict(type='RandomOcclusion', prob=1))(dict(img=image, other=1))
    changed = (results['img'] != image).any(axis=2)
    assert results['other'] == 1 and 0 < changed.mean() < 0.5 and results['img'].min() > 0
    assert np.array_equal(results['img'][~changed], image[~changed])
