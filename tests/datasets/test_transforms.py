import cv2
import numpy as np
import pytest
import torch
from mmpose.datasets.transforms import RandomBBoxTransform
from mmpose.registry import DATASETS
from torch.utils.data import default_collate

from hg_plugin.datasets import MPIIPoseDataset, PackKeypoints, TopdownCrop
from hg_plugin.models import HeatmapDataPreprocessor
from hg_plugin.utils.errors import InputError

SIZE = (256, 256)
MPII = MPIIPoseDataset.METAINFO
BOX = dict(type='GetBBoxCenterScale')
CROP = dict(type='TopdownCrop', input_size=SIZE)
KEYPOINTS = dict(type='PackKeypoints')
SAMPLE = dict(type='PackPoseInputs', pack_transformed=True)
IMAGE = dict(type='LoadImage')
FLIP = dict(type='RandomFlip', prob=1.0, direction='horizontal')
AFFINE = dict(type='TopdownAffine', input_size=SIZE)
HALF_BODY = dict(type='RandomHalfBody', prob=1.0)
RANDOM_BOX = dict(type='RandomBBoxTransform')
ONE_LESS = dict(
    type='KeypointConverter',
    num_keypoints=15,
    mapping=[((8, 9), 0), *((k if k < 8 else k + 1, k) for k in range(1, 15))],
)
CODEC = dict(type='MSRAHeatmap', input_size=SIZE, heatmap_size=(64, 64), sigma=2)
TARGET = dict(type='GenerateTarget', encoder=CODEC)


class FixedTransform(RandomBBoxTransform):
    """The same scale and rotation for all."""

    def __init__(self, scale=1.0, rotation=0.0):
        super().__init__()
        self.values = np.zeros((1, 2)), np.full((1, 1), scale), np.full(1, rotation)

    def _get_transform_params(self, num_bboxes):
        return self.values


class FullSizeCrop(TopdownCrop):
    """Decodes all images at their full size."""

    def region(self, width, height):
        return super().region(width, height)[0], 1


def samples(root, *pipeline):
    options = dict(data_root=str(root), serialize_data=False)  # serialization collects garbage
    dataset = MPIIPoseDataset('annotations/mpii_val.json', pipeline=list(pipeline), **options)
    return [dataset[index] for index in range(len(dataset))]


@pytest.mark.parametrize('udp', [False, True], ids=['msra', 'udp'])
@pytest.mark.parametrize('flip', [False, True], ids=['plain', 'flipped'])
@pytest.mark.parametrize('scale, rotation', [(1.0, 0.0), (0.8, 25.0), (1.2, -30.0)])
def test_the_network_sees_what_mmposes_transforms_give(real_data, scale, rotation, flip, udp):
    root, fixed = real_data('mpii_sample'), FixedTransform(scale, rotation)
    stock = [IMAGE, BOX, dict(FLIP, prob=float(flip)), fixed, dict(AFFINE, use_udp=udp), SAMPLE]
    ours = [BOX, fixed, FullSizeCrop(SIZE, flip_prob=float(flip), use_udp=udp), SAMPLE]
    for a, b in zip(samples(root, *stock), samples(root, *ours)):
        image, expected = b['inputs'].numpy().astype(int), a['inputs'].numpy()
        assert np.abs(image - expected).mean() < 0.5  # OpenCV rounds positions to 1/32 pixel
        a, b = a['data_samples'], b['data_samples']
        a_points, b_points = a.gt_instances.transformed_keypoints, b.gt_instances.transformed_keypoints
        assert np.allclose(a_points, b_points, atol=2e-2)
        assert np.array_equal(a.gt_instances.keypoints_visible, b.gt_instances.keypoints_visible)
        for key in ('flip', 'flip_direction', 'input_size', 'ori_shape'):
            assert a.metainfo[key] == b.metainfo[key]
        assert np.allclose(a.gt_instances.bbox_scales, b.gt_instances.bbox_scales)


@pytest.mark.parametrize('settings', [{}, dict(scale_factor=(1.2, 1.2), flip_prob=1.0, rotate_factor=30)])
def test_a_large_persons_image_is_decoded_smaller_and_lands_in_the_same_place(real_data, settings):
    root = real_data('mpii_sample')
    np.random.seed(0)
    full = samples(root, BOX, FullSizeCrop(SIZE, **settings), SAMPLE)
    np.random.seed(0)
    reduced = samples(root, BOX, dict(CROP, **settings), SAMPLE)
    crop = TopdownCrop(SIZE)
    reductions = [crop.region(*s['data_samples'].gt_instances.bbox_scales[0])[1] for s in full]
    assert reductions.count(1) < 3
    for a, b in zip(full, reduced):
        a_points, b_points = (s['data_samples'].gt_instances.transformed_keypoints for s in (a, b))
        assert np.array_equal(a_points, b_points)
        a, b = (
            cv2.GaussianBlur(s['inputs'].permute(1, 2, 0).numpy(), (0, 0), 4).astype(np.float32).mean(axis=2)
            for s in (a, b)
        )
        # a reduced image that is misplaced by half a pixel is off by a quarter of an input pixel and more
        (shift_x, shift_y), _ = cv2.phaseCorrelate(a, b)
        assert abs(shift_x) < 0.08 and abs(shift_y) < 0.08
        assert np.abs(a - b).mean() < 1.5


def test_no_reduced_image_is_magnified():
    crop = TopdownCrop(input_size=(192, 256))
    for width, height, expected in (
        (300, 340, 1),
        (300, 511, 1),
        (300, 512, 2),
        (384, 300, 2),
        (1536, 300, 8),
        (9999, 9999, 8),
    ):
        (region_width, region_height), reduction = crop.region(width, height)
        assert reduction == expected and region_width / region_height == pytest.approx(192 / 256)
        assert (region_width, region_height) >= (width, height)


def test_an_image_in_memory_is_cropped_as_its_file(real_data):
    path = sorted((real_data('mpii_sample') / 'images').iterdir())[0]
    image = cv2.imread(str(path))
    person = dict(bbox_center=np.array([[400.0, 300.0]]), bbox_scale=np.array([[600.0, 600.0]]))
    crop = TopdownCrop((64, 64))
    stored, given = (crop({**person, **source}) for source in (dict(img_path=path), dict(img=image)))
    assert np.abs(stored['img'].astype(int) - given['img']).mean() < 1.5
    assert stored['ori_shape'] == given['ori_shape'] == image.shape[:2] and given['img_path'] is None


def test_random_numbers_have_mmposes_distribution():
    np.random.seed(0)
    settings = dict(
        shift_prob=0.5, shift_factor=0.2, scale_factor=(0.75, 1.25), rotate_prob=0.6, rotate_factor=30
    )
    theirs = RandomBBoxTransform(**settings)
    ours = TopdownCrop((1, 1), flip_prob=0.3, **settings)

    def box():
        return dict(bbox_center=np.zeros((1, 2), np.float32), bbox_scale=np.ones((1, 2), np.float32))

    def draw_theirs():
        results = theirs(box())
        return *results['bbox_center'][0], results['bbox_scale'][0, 0], results['bbox_rotation'][0]

    flips = []

    def draw_ours():
        keypoints = dict(keypoints=np.array([[[0, 0], [0, 1]]], np.float32), flip_indices=[0, 1])
        keypoints['keypoints_visible'] = np.ones((1, 2), np.float32)
        results = ours(dict(box(), img=np.zeros((2, 2, 3), np.uint8), **keypoints))
        flips.append(results['flip'])
        # the rotation shows in where a step along y goes
        step = np.diff(results['transformed_keypoints'][0], axis=0)[0] * (-1 if flips[-1] else 1, 1)
        return *results['input_center'], results['input_scale'][0], np.degrees(np.arctan2(*step))

    values = [np.array([draw() for _ in range(6000)]) for draw in (draw_theirs, draw_ours)]
    for drawn in values:
        assert np.abs(drawn[:, :2]).max() <= 0.2 and np.abs(drawn[:, 3]).max() <= 30.01
    quantiles = [np.quantile(v / [0.2, 0.2, 0.25, 30], np.linspace(0, 1, 21), axis=0) for v in values]
    assert np.allclose(*quantiles, atol=0.06)
    moments = [np.corrcoef(drawn.T) for drawn in values]
    assert np.allclose(*moments, atol=0.06)
    assert np.mean(flips) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize('pack', [SAMPLE, dict(KEYPOINTS, pack_transformed=True)], ids=['stock', 'drawn'])
def test_persons_are_packed_as_three_tensors(real_data, pack):
    root = real_data('mpii_sample')
    packed, expected = (samples(root, BOX, CROP, each) for each in (KEYPOINTS, pack))
    for sample, other in zip(packed, expected):
        assert np.array_equal(sample['inputs'], other['inputs']) and sample['inputs'].is_contiguous()
        person, keypoints = other['data_samples'].gt_instances, sample['data_samples']
        assert np.allclose(keypoints['keypoints'], person.transformed_keypoints[0], atol=1e-4)
        assert np.array_equal(keypoints['keypoints_visible'], person.keypoints_visible[0])
        assert other['data_samples'].img_path


@pytest.mark.parametrize(
    'pipeline',
    [
        [IMAGE, BOX, RANDOM_BOX, AFFINE, KEYPOINTS],
        [BOX, HALF_BODY, CROP, dict(type='PhotometricDistortion'), KEYPOINTS],
        [IMAGE, dict(type='PhotometricDistortion'), BOX, CROP, KEYPOINTS],
    ],
)
def test_mixtures_with_mmposes_transforms(real_data, pipeline):
    for sample in samples(real_data('mpii_sample'), *pipeline):
        assert sample['inputs'].shape == (3, 256, 256)


@pytest.mark.parametrize(
    'pipeline, message',
    [
        ([IMAGE, BOX, AFFINE, CROP, KEYPOINTS], 'after another crop'),
        ([BOX, TARGET, CROP, SAMPLE], 'or GenerateTarget'),
        # the mean of two joints moves the others' places, and KeypointConverter pairs them wrongly
        ([ONE_LESS, BOX, dict(CROP, flip_prob=1.0), KEYPOINTS], 'do not pair 15 keypoints'),
    ],
)
def test_an_order_that_would_train_on_wrong_images_is_refused(real_data, pipeline, message):
    with pytest.raises(InputError, match=message):
        samples(real_data('mpii_sample'), *pipeline)


def test_visibility_and_weight_are_packed_as_their_product():
    results = dict(
        img=np.zeros((4, 4, 3), np.uint8),
        transformed_keypoints=np.zeros((1, 3, 2)),
        keypoints_visible=np.array([[[1, 0.25], [1, 0], [0, 1]]]),
    )
    assert PackKeypoints()(results)['data_samples']['keypoints_visible'].tolist() == [0.25, 0, 0]


@pytest.mark.parametrize('flip_prob', [0.0, 1.0])
def test_keypoint_converter_joins_datasets_as_with_mmposes_transforms(real_data, flip_prob):
    """MPII as it is, and with the wrists only: samples of both collate, and equal those of MMPose."""
    root = str(real_data('mpii_sample'))
    one = dict(type='MPIIPoseDataset', data_root=root, ann_file='annotations/mpii_val.json')
    wrists = dict(type='KeypointConverter', num_keypoints=16, mapping=[(10, 10), (15, 15)])
    datasets = [dict(one, pipeline=[]), dict(one, pipeline=[wrists])]
    stock = [IMAGE, BOX, dict(FLIP, prob=flip_prob), AFFINE, TARGET, SAMPLE]
    ours = [BOX, dict(CROP, flip_prob=flip_prob), KEYPOINTS]
    stock, ours = (
        DATASETS.build(dict(type='CombinedDataset', metainfo=MPII, datasets=datasets, pipeline=pipeline))
        for pipeline in (stock, ours)
    )
    batch = default_collate([ours[index] for index in range(len(ours))])
    drawn = HeatmapDataPreprocessor(encoder=CODEC)(batch)['data_samples']
    assert drawn['heatmaps'].shape[2:] == (64, 64)
    for index in range(len(stock)):
        sample = stock[index]['data_samples']
        weights = sample.gt_instance_labels.keypoint_weights[0]
        assert torch.equal(drawn['keypoint_weights'][index], weights.float())
        # OpenCV's and MMPose's matrices differ by a rounding error, which may move a peak to the next pixel
        heatmaps = sample.gt_fields.heatmaps
        assert (drawn['heatmaps'][index] - heatmaps).abs().flatten(1).max(1).values.gt(1e-2).sum() <= 1
    assert drawn['keypoint_weights'][len(ours) // 2 :].sum(dim=0).nonzero().flatten().tolist() == [10, 15]
