import cv2
import numpy as np
import pytest
from mmpose.datasets.transforms import RandomBBoxTransform

from hg_plugin.datasets import (
    LoadReducedImage,
    MPIIPoseDataset,
    PackKeypoints,
    RandomMirror,
    RandomPersonTransform,
)
from hg_plugin.datasets.transforms import average, decode, picture_from_reduced
from hg_plugin.utils.errors import InputError

SIZE = dict(input_size=(256, 256))
PACK = dict(type='PackPoseInputs', pack_transformed=True)


class FixedTransform(RandomBBoxTransform):
    """The same shift, scale and rotation for everybody; a rotation turns the other way in a mirror."""

    def __init__(self, scale=1.0, rotation=0.0):
        super().__init__()
        self.values = np.zeros((1, 2)), np.full((1, 1), scale), np.full(1, rotation)

    def _get_transform_params(self, num_bboxes):
        return self.values


def samples(root, *pipeline):
    dataset = MPIIPoseDataset('annotations/mpii_val.json', data_root=str(root), pipeline=list(pipeline))
    return [dataset[index] for index in range(len(dataset))]


def stock(root, scale, rotation, flip, udp):
    return samples(
        root,
        dict(type='LoadImage'),
        dict(type='GetBBoxCenterScale'),
        dict(type='RandomFlip', prob=float(flip), direction='horizontal'),
        FixedTransform(scale, rotation),
        dict(type='TopdownAffine', use_udp=udp, **SIZE),
        PACK,
    )


def ours(root, scale, rotation, flip, udp, **load):
    return samples(
        root,
        dict(type='GetBBoxCenterScale'),
        dict(type='LoadReducedImage', **{**SIZE, **load}),
        FixedTransform(scale, rotation),
        dict(type='RandomMirror', prob=float(flip)),
        dict(type='TopdownWarp', use_udp=udp, **SIZE),
        PACK,
    )


@pytest.mark.parametrize('udp', [False, True], ids=['msra', 'udp'])
@pytest.mark.parametrize('flip', [False, True], ids=['plain', 'mirrored'])
@pytest.mark.parametrize('scale, rotation', [(1.0, 0.0), (0.8, 25.0), (1.2, -30.0)])
def test_the_network_sees_what_mmposes_transforms_give(real_data, scale, rotation, flip, udp):
    root = real_data('mpii_sample')
    # an input too large for any reduction, so that both warp the same pixels
    for a, b in zip(
        stock(root, scale, rotation, flip, udp),
        ours(root, scale, rotation, flip, udp, input_size=(9999, 9999)),
    ):
        picture, expected = b['inputs'].numpy().astype(int), a['inputs'].numpy()
        assert np.abs(picture - expected).mean() < 0.5  # OpenCV rounds positions to 1/32 pixel
        a, b = a['data_samples'], b['data_samples']
        assert np.allclose(
            a.gt_instances.transformed_keypoints, b.gt_instances.transformed_keypoints, atol=2e-2
        )
        assert np.array_equal(a.gt_instances.keypoints_visible, b.gt_instances.keypoints_visible)
        assert a.flip == b.flip and a.input_size == b.input_size and a.ori_shape == b.ori_shape


def test_a_large_persons_picture_is_decoded_smaller_and_lands_in_the_same_place(real_data):
    root = real_data('mpii_sample')
    full, reduced = (
        ours(root, 1.0, 0.0, False, False, input_size=(9999, 9999)),
        ours(root, 1.0, 0.0, False, False),
    )
    assert [
        LoadReducedImage(**SIZE).reduction(s['data_samples'].gt_instances.bbox_scales[0]) for s in full
    ].count(1) < 3
    for a, b in zip(full, reduced):
        assert np.array_equal(
            a['data_samples'].gt_instances.transformed_keypoints,
            b['data_samples'].gt_instances.transformed_keypoints,
        )
        a, b = (
            cv2.GaussianBlur(s['inputs'].permute(1, 2, 0).numpy(), (0, 0), 4).astype(np.float32).mean(axis=2)
            for s in (a, b)
        )
        # a misplaced half pixel of the reduced picture would be a quarter of an input pixel and more
        (shift_x, shift_y), _ = cv2.phaseCorrelate(a, b)
        assert abs(shift_x) < 0.08 and abs(shift_y) < 0.08
        assert np.abs(a - b).mean() < 1.5


def test_reduction_leaves_at_least_the_inputs_pixels():
    load = LoadReducedImage(input_size=(192, 256), min_scale=0.75)
    for width, height, expected in (
        (300, 340, 1),
        (300, 682, 1),
        (300, 683, 2),
        (513, 300, 2),
        (4200, 300, 8),
        (9999, 9999, 8),
    ):
        assert load.reduction(np.array([width, height], np.float32)) == expected, (width, height)


def test_reduced_pixels_lie_where_opencv_puts_them(tmp_path):
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, 24:] = 255  # a vertical edge at x = 23.5
    cv2.imwrite(str(tmp_path / 'edge.jpg'), image, [cv2.IMWRITE_JPEG_QUALITY, 100])
    for reduction in (2, 4, 8):
        row = cv2.imread(str(tmp_path / 'edge.jpg'), getattr(cv2, f'IMREAD_REDUCED_COLOR_{reduction}'))[
            16 // reduction, :, 0
        ]
        edge = np.argmax(row > 127) - 0.5
        assert (picture_from_reduced(reduction) @ [edge, 0, 1])[0] == 23.5


@pytest.mark.parametrize('reduction', [2, 4, 8])
def test_other_formats_and_pictures_in_memory_are_averaged_as_a_jpeg_is(real_data, tmp_path, reduction):
    path = sorted((real_data('mpii_sample') / 'images').iterdir())[0]
    image = cv2.imread(str(path))
    cv2.imwrite(str(tmp_path / 'a.png'), image)
    load, box = LoadReducedImage(input_size=(64, 64)), np.full((1, 2), 64.0 * reduction)
    jpeg = load(dict(img_path=str(path), bbox_scale=box))
    for results in (dict(img_path=str(tmp_path / 'a.png'), bbox_scale=box), dict(img=image, bbox_scale=box)):
        results = load(results)
        assert (
            results['img_reduction'] == jpeg['img_reduction'] == reduction
            and results['ori_shape'] == jpeg['ori_shape']
            and 'img' not in results
        )
        assert np.abs(results['reduced_img'].astype(int) - jpeg['reduced_img']).mean() < 1.5


@pytest.mark.parametrize('width, height', [(1, 1), (13, 22), (32, 40)])
def test_any_size_shrinks_to_a_jpegs(width, height):
    image = np.full((height, width, 3), 90, np.uint8)
    data = cv2.imencode('.jpg', image)[1].tobytes()
    for reduction in (2, 4, 8):
        shrunk = average(image, reduction)
        assert shrunk.shape == decode(data, reduction, 'a.jpg').shape and (shrunk == 90).all()


def test_a_picture_that_was_cut_off_is_refused(real_data, tmp_path):
    data = sorted((real_data('mpii_test_pictures')).glob('*.jpg'))[0].read_bytes()
    assert (
        decode(data + b'x' * 2000, 2, 'a.jpg').shape == decode(data, 2, 'a.jpg').shape
    )  # cameras append what they like
    for content in (data[: len(data) // 2], b'', b'no picture'):
        with pytest.raises(InputError, match='a.jpg is no picture or was cut off'):
            decode(content, 2, 'a.jpg')


def test_values_that_mean_nothing_are_refused():
    for build in (lambda: LoadReducedImage((64, 64), min_scale=0), lambda: RandomMirror(prob=7)):
        with pytest.raises(InputError, match='min_scale is 0|prob is 7'):
            build()
    with pytest.raises(InputError, match='put TopdownWarp before'):
        PackKeypoints()(
            dict(
                img=np.zeros((4, 4, 3), np.uint8), transformed_keypoints=np.zeros((1, 2, 2)), mirror_axis=3.0
            )
        )


def test_random_numbers_have_mmposes_distribution():
    np.random.seed(0)
    settings = dict(
        shift_prob=0.5,
        shift_factor=0.2,
        scale_prob=0.7,
        scale_factor=(0.75, 1.25),
        rotate_prob=0.6,
        rotate_factor=30,
    )
    box = dict(bbox_center=np.zeros((1, 2), np.float32), bbox_scale=np.ones((1, 2), np.float32))
    values = []
    for transform in (RandomPersonTransform(**settings), RandomBBoxTransform(**settings)):
        drawn = [transform(dict(box)) for _ in range(6000)]
        assert {results[key].dtype for results in drawn for key in box} <= {
            np.dtype('float32'),
            np.dtype('float64'),
        }
        values.append(
            np.array([[*r['bbox_center'][0], r['bbox_scale'][0, 0], r['bbox_rotation'][0]] for r in drawn])
        )
        assert np.abs(values[-1][:, :2]).max() <= 0.2 and np.abs(values[-1][:, 3]).max() <= 30
    ours, theirs = (np.quantile(v / [0.2, 0.2, 0.25, 30], np.linspace(0, 1, 21), axis=0) for v in values)
    assert np.allclose(ours, theirs, atol=0.06)


def test_persons_are_packed_as_three_tensors(real_data):
    root = real_data('mpii_sample')
    packed = samples(
        root,
        dict(type='GetBBoxCenterScale'),
        dict(type='LoadReducedImage', **SIZE),
        dict(type='TopdownWarp', **SIZE),
        dict(type='PackKeypoints'),
    )
    for sample, expected in zip(packed, ours(root, 1.0, 0.0, False, False)):
        assert np.array_equal(sample['inputs'], expected['inputs']) and sample['inputs'].is_contiguous()
        expected = expected['data_samples'].gt_instances
        assert np.array_equal(sample['data_samples']['keypoints'], expected.transformed_keypoints[0])
        assert np.array_equal(sample['data_samples']['keypoints_visible'], expected.keypoints_visible[0])
