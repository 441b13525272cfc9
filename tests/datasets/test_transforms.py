import cv2
import numpy as np
import pytest
from mmpose.datasets.transforms import RandomBBoxTransform

from hg_plugin.datasets import MPIIPoseDataset, RandomPersonTransform
from hg_plugin.datasets.transforms import LoadReducedImage, picture_from_reduced

SIZE = dict(input_size=(256, 256))
PACK = dict(type='PackPoseInputs', pack_transformed=True)


class FixedTransform(RandomBBoxTransform):
    """The same shift, scale and rotation for everybody; a rotation turns the other way in a mirror."""

    def __init__(self, scale=1., rotation=0.):
        super().__init__()
        self.values = np.zeros((1, 2)), np.full((1, 1), scale), np.full(1, rotation)

    def _get_transform_params(self, num_bboxes):
        return self.values


def samples(root, *pipeline):
    dataset = MPIIPoseDataset('annotations/mpii_val.json', data_root=str(root), pipeline=list(pipeline))
    return [dataset[index] for index in range(len(dataset))]


def stock(root, scale, rotation, flip, udp):
    return samples(root, dict(type='LoadImage'), dict(type='GetBBoxCenterScale'),
                   dict(type='RandomFlip', prob=float(flip), direction='horizontal'), FixedTransform(scale, rotation),
                   dict(type='TopdownAffine', use_udp=udp, **SIZE), PACK)


def ours(root, scale, rotation, flip, udp, **load):
    return samples(root, dict(type='GetBBoxCenterScale'), dict(type='LoadReducedImage', **{**SIZE, **load}), FixedTransform(scale, rotation),
                   dict(type='RandomMirror', prob=float(flip)), dict(type='TopdownWarp', use_udp=udp, **SIZE), PACK)


@pytest.mark.parametrize('udp', [False, True], ids=['msra', 'udp'])
@pytest.mark.parametrize('flip', [False, True], ids=['plain', 'mirrored'])
@pytest.mark.parametrize('scale, rotation', [(1., 0.), (0.8, 25.), (1.2, -30.)])
def test_the_network_sees_what_mmposes_transforms_give(real_data, scale, rotation, flip, udp):
    root = real_data('mpii_sample')
    # an input too large for any reduction, so that both warp the same pixels
    for a, b in zip(stock(root, scale, rotation, flip, udp), ours(root, scale, rotation, flip, udp, input_size=(9999, 9999))):
        picture, expected = b['inputs'].numpy().astype(int), a['inputs'].numpy()
        assert np.abs(picture - expected).mean() < 0.5  # OpenCV rounds positions to 1/32 pixel
        a, b = a['data_samples'], b['data_samples']
        assert np.allclose(a.gt_instances.transformed_keypoints, b.gt_instances.transformed_keypoints, atol=2e-2)
        assert np.array_equal(a.gt_instances.keypoints_visible, b.gt_instances.keypoints_visible)
        assert a.flip == b.flip and a.input_size == b.input_size and a.ori_shape == b.ori_shape


def test_a_large_persons_picture_is_decoded_smaller_and_lands_in_the_same_place(real_data):
    root = real_data('mpii_sample')
    full, reduced = ours(root, 1., 0., False, False, input_size=(9999, 9999)), ours(root, 1., 0., False, False)
    assert [LoadReducedImage(**SIZE).reduction(s['data_samples'].gt_instances.bbox_scales[0]) for s in full].count(1) < 3
    for a, b in zip(full, reduced):
        assert np.array_equal(a['data_samples'].gt_instances.transformed_keypoints, b['data_samples'].gt_instances.transformed_keypoints)
        a, b = (cv2.GaussianBlur(s['inputs'].permute(1, 2, 0).numpy(), (0, 0), 4).astype(np.float32).mean(axis=2) for s in (a, b))
        # a misplaced half pixel of the reduced picture would be a quarter of an input pixel and more
        (shift_x, shift_y), _ = cv2.phaseCorrelate(a, b)
        assert abs(shift_x) < 0.08 and abs(shift_y) < 0.08
        assert np.abs(a - b).mean() < 1.5


def test_reduction_leaves_at_least_the_inputs_pixels():
    load = LoadReducedImage(input_size=(192, 256), min_scale=0.75)
    for width, height, expected in ((300, 340, 1), (300, 682, 1), (300, 683, 2), (513, 300, 2), (4200, 300, 8), (9999, 9999, 8)):
        assert load.reduction(np.array([width, height], np.float32)) == expected, (width, height)


def test_reduced_pixels_lie_where_opencv_puts_them(tmp_path):
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 24:] = 255  # a vertical edge at x = 23.5
    cv2.imwrite(str(tmp_path / 'edge.jpg'), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
    for reduction in (2, 4, 8):
        row = cv2.imread(str(tmp_path / 'edge.jpg'), getattr(cv2, f'IMREAD_REDUCED_COLOR_{reduction}'))[16 // reduction, :, 0]
        edge = np.argmax(row > 127) - 0.5
        assert (picture_from_reduced(reduction) @ [edge, 0, 1])[0] == 23.5


def test_png_and_pictures_in_memory_are_not_reduced(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (700, 800, 3), np.uint8)
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    load, box = LoadReducedImage(input_size=(64, 64)), np.full((1, 2), 600.)
    for results in (dict(img_path=str(tmp_path / 'a.png'), bbox_scale=box), dict(img=image, bbox_scale=box)):
        results = load(results)
        assert results['img_reduction'] == 1 and results['ori_shape'] == (700, 800)
        assert np.array_equal(results['reduced_img'], image) and 'img' not in results


def test_random_numbers_have_mmposes_distribution():
    np.random.seed(0)
    ours = RandomPersonTransform._truncnorm(size=(40_000, ))
    theirs = RandomBBoxTransform._truncnorm(size=(40_000, ))
    assert np.abs(ours).max() <= 1 and ours.dtype == theirs.dtype
    assert np.allclose(np.quantile(ours, np.linspace(0, 1, 21)), np.quantile(theirs, np.linspace(0, 1, 21)), atol=0.02)


def test_persons_are_packed_as_three_tensors(real_data):
    root = real_data('mpii_sample')
    packed = samples(root, dict(type='GetBBoxCenterScale'), dict(type='LoadReducedImage', **SIZE), dict(type='TopdownWarp', **SIZE),
                     dict(type='PackKeypoints'))
    for sample, expected in zip(packed, ours(root, 1., 0., False, False)):
        assert np.array_equal(sample['inputs'], expected['inputs']) and sample['inputs'].is_contiguous()
        expected = expected['data_samples'].gt_instances
        assert np.array_equal(sample['data_samples']['keypoints'], expected.transformed_keypoints[0])
        assert np.array_equal(sample['data_samples']['keypoints_visible'], expected.keypoints_visible[0])
