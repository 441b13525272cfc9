import functools
import shutil
import weakref

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from mmpose.apis import inference_topdown, init_model
from torch import nn

from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.utils.checkpoint import KPT_THR, kpt_thr_of, write_kpt_thr
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.weights import DEFAULT, shipped_networks

SMALL = {'model.backbone.channels': 16}
UDP = {
    **SMALL,
    'model.codec': dict(type='UDPHeatmap', input_size=(256, 256), heatmap_size=(64, 64), sigma=2),
    'test_dataloader.dataset.pipeline.1.use_udp': True,
    'model.test_cfg.shift_heatmap': False,
}
NETWORKS = dict(
    mpii=SMALL,
    udp=UDP,
    coco=SMALL,
    offsets={
        **UDP,
        'model.codec': dict(UDP['model.codec'], heatmap_type='combined', radius_factor=0.0546875),
        'model.backbone.num_keypoints': 48,
        'model.data_preprocessor.encoder': None,
        'model.head.loss': dict(type='CombinedTargetMSELoss'),
        'model.test_cfg.flip_mode': 'udp_combined',
    },
    other_keypoints={**SMALL, 'model.backbone.num_keypoints': 14},
)
BOXES = [
    [20, 10, 140, 150],
    [-30, 60, 90, 260],
    [100, 0, 199, 160],
    [150.5, 20.25, 240, 150],
    [0, 0, 200, 160],
]


@pytest.fixture(scope='module')
def files(make_network):
    """Gives the config and a checkpoint of random weights, by a name of NETWORKS."""

    @functools.cache
    def files(name):
        return make_network(f'hg_2stack_{"coco" if name == "coco" else "mpii"}.py', **NETWORKS[name])

    return files


@pytest.fixture(scope='module')
def image():
    """(160, 200, 3)."""
    noise = np.random.RandomState(0).randint(0, 255, (20, 25, 3), np.uint8)
    return cv2.resize(noise, (200, 160), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope='module')
def mpii(files):
    return PoseEstimator(*files('mpii'), device='cpu')


def assert_agree(poses, keypoints, scores):
    """A codec may turn rounding into a pixel where a random network's heatmap is flat, but not often."""
    np.testing.assert_allclose(poses.scores, scores, atol=1e-5)
    distances = np.linalg.norm(poses.keypoints - keypoints, axis=-1)
    assert np.mean(distances < 1e-2) > 0.9, distances


@pytest.mark.parametrize('flip_test', [False, True])
@pytest.mark.parametrize('name', ['mpii', 'coco', 'udp', 'offsets'])
def test_boxes_go_through_the_configs_crop_and_codec_whatever_the_batch(files, image, name, flip_test):
    config, checkpoint = files(name)
    model = init_model(config, checkpoint, device='cpu')
    model.test_cfg['flip_test'] = flip_test
    samples = inference_topdown(model, image, np.array(BOXES, np.float32))

    poses = PoseEstimator(config, checkpoint, device='cpu', batch_size=2)(image, BOXES, flip_test=flip_test)
    assert_agree(
        poses,
        np.concatenate([sample.pred_instances.keypoints for sample in samples]),
        np.concatenate([sample.pred_instances.keypoint_scores for sample in samples]),
    )


def test_images_share_batches_and_come_in_order(mpii, image):
    images = [
        (image, BOXES[:3]),
        (image[:, ::-1], []),
        (image[:100], None),
        (image, [BOXES[4]] * 20),
        (image, []),
    ]
    streamed = list(mpii.stream(images, whole_image=True))
    assert [len(poses.keypoints) for poses in streamed] == [3, 0, 1, 20, 0]
    for (image, boxes), poses in zip(images, streamed):
        alone = mpii(image, boxes, whole_image=True)
        assert poses.keypoints.shape[1:] == (16, 2) and poses.scores.shape[1:] == (16,)
        if len(alone.keypoints):
            assert_agree(poses, *alone)


def test_never_more_than_a_batch_of_images_is_held(files, image):
    estimator = PoseEstimator(*files('mpii'), device='cpu', batch_size=4)
    references, most = [], 0

    def images():
        nonlocal most
        for number in range(30):
            copy = image.copy()
            references.append(weakref.ref(copy))
            most = max(most, sum(reference() is not None for reference in references))
            # some without persons, which must not wait for one with
            yield copy, [] if number % 10 < 6 else BOXES[:1]
            del copy

    assert sum(len(poses.keypoints) for poses in estimator.stream(images())) == 12
    # and the one that comes in, the one that is being cropped, and the one of the last result
    assert most <= 4 + 3


def test_heatmaps_of_every_stack(mpii, image):
    poses = mpii(image, BOXES[:2], heatmaps=True)
    assert poses.heatmaps.shape == (2, 2, 16, 64, 64) and poses.crops.shape == (2, 256, 256, 3)
    plain = mpii(image, BOXES[:2])
    np.testing.assert_array_equal(poses.keypoints, plain.keypoints)
    np.testing.assert_array_equal(poses.heatmaps[:, -1].max(axis=(2, 3)), plain.scores)
    assert np.abs(poses.heatmaps[:, 0] - poses.heatmaps[:, 1]).max() > 0.01
    with torch.no_grad():  # the crops are what the network saw, in BGR
        mean, std = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
        inputs = (torch.from_numpy(poses.crops[..., ::-1].copy()) - torch.tensor(mean)) / torch.tensor(std)
        stacks = mpii.model.backbone(inputs.permute(0, 3, 1, 2))
    np.testing.assert_allclose(torch.stack(stacks, dim=1), poses.heatmaps, atol=1e-4)
    none = mpii(image, [], heatmaps=True)
    assert none.heatmaps.shape == (0, 2, 16, 64, 64) and none.crops.shape == (0, 256, 256, 3)


class Blobs(nn.Module):
    """A network of which we know the answer: a heatmap is the image's brightness."""

    def __init__(self, use_udp):
        super().__init__()
        self.use_udp = use_udp

    def forward(self, image):
        bright = (image[:, 2:] * 57.375 + 103.53) / 255
        if self.use_udp:
            maps = F.interpolate(bright, (64, 64), mode='bilinear', align_corners=True)
        else:
            maps = bright[..., ::4, ::4]
        return (maps.expand(-1, 16, -1, -1),) * 2


BOX = (100, 60, 300, 260)


@pytest.fixture(params=['mpii', 'udp'])
def blobs(request, files):
    estimator = PoseEstimator(*files(request.param), device='cpu')
    estimator.model.backbone = Blobs(request.param == 'udp')
    return estimator


def blob(x, y, sigma=14):
    """An image with a Gaussian bright spot at (x, y)."""
    rows, columns = np.mgrid[:320, :400]
    gray = np.rint(255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))).astype(np.uint8)
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR)


@pytest.mark.parametrize('scale', [0.5, 1.6])
def test_heatmaps_of_other_scales_lie_where_those_of_scale_1_lie(blobs, scale):
    image = blob(207, 150, sigma=24)
    expected = blobs(image, [BOX], heatmaps=True).heatmaps
    found = blobs(image, [BOX], scales=(scale,), heatmaps=True).heatmaps
    # what interpolation loses; the half pixel between the two ways to crop would change it by more
    np.testing.assert_allclose(found[..., 20:44, 20:44], expected[..., 20:44, 20:44], atol=0.025)
    assert expected.max() > 0.95


@pytest.mark.parametrize(
    'x, y', [(200, 160), (230, 100), (310, 240), (90, 55)]
)  # the last two outside of scale 0.6
@pytest.mark.parametrize('flip_test', [False, True])
def test_the_multi_scale_test_averages_what_the_crops_see(blobs, x, y, flip_test):
    image = blob(x, y)
    poses = blobs(image, [BOX], scales=(0.6, 1, 1.4), flip_test=flip_test, heatmaps=True)
    # a heatmap's pixel is 3.9 of the image's
    np.testing.assert_allclose(poses.keypoints[0], np.tile([x, y], (16, 1)), atol=2)
    assert poses.scores.min() > 0.9  # an average with zeros would be at most 0.67
    small, one, large = (
        blobs(image, [BOX], scales=(scale,), flip_test=flip_test, heatmaps=True).heatmaps
        for scale in (0.6, 1, 1.4)
    )
    inside, outside = np.s_[..., 20:44, 20:44], np.s_[..., :10]
    np.testing.assert_allclose(poses.heatmaps[inside], (small + one + large)[inside] / 3, atol=1e-5)
    np.testing.assert_allclose(poses.heatmaps[outside], (one + large)[outside] / 2, atol=1e-5)


def test_all_kinds_of_images_give_the_same(mpii, image, tmp_path):
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    alpha, bits16 = np.dstack([image, gray]), image.astype(np.uint16) * 257
    pil = PIL.Image.fromarray(image[..., ::-1])
    kinds = [alpha, bits16, alpha.astype(np.uint16) * 257, image[:, ::-1][:, ::-1], pil, pil.convert('RGBA')]
    pil16 = PIL.Image.fromarray(gray.astype(np.uint16) * 257)
    grays = [gray, gray[..., None], PIL.Image.fromarray(gray), pil16]
    for number, (other, group) in enumerate([(alpha, kinds), (bits16, kinds), (gray, grays)]):
        group.append(tmp_path / f'{number} ä.png')
        cv2.imwrite(str(group[-1]), other)
    for same, others in ((image, kinds), (cv2.cvtColor(gray, cv2.COLOR_GRAY2BGR), grays)):
        expected = mpii(same, BOXES[:1]).keypoints
        for other in others:
            np.testing.assert_array_equal(mpii(other, BOXES[:1]).keypoints, expected)


def test_lists_of_images(mpii, image):
    results = mpii([image, image, image[:100]], [BOXES[:2], [], None], whole_image=True)
    assert [len(poses.keypoints) for poses in results] == [2, 0, 1] and mpii([]) == []
    assert_agree(results[0], *mpii(image, BOXES[:2]))
    assert [len(poses.keypoints) for poses in mpii((image, image), whole_image=True)] == [1, 1]
    with pytest.raises(InputError, match='2 images and boxes of 1'):
        mpii([image, image], [BOXES])


@pytest.mark.slow
def test_keypoints_that_were_never_annotated_have_no_score(files, image, tmp_path):
    config, checkpoint = files('mpii')
    options = {'model.test_cfg.unannotated_keypoints': ['pelvis', 'thorax']}
    estimator = PoseEstimator(config, checkpoint, device='cpu', cfg_options=options)
    plain = PoseEstimator(config, checkpoint, device='cpu')
    assert plain.annotated.all() and np.flatnonzero(~estimator.annotated).tolist() == [6, 7]
    expected = plain(image, whole_image=True).scores
    expected[:, [6, 7]] = 0
    np.testing.assert_array_equal(estimator(image, whole_image=True).scores, expected)
    # what the checkpoint says of its training counts more
    meta = dict(dataset_meta=plain.dataset_meta | dict(unannotated_keypoints=['head_top']))
    torch.save(torch.load(checkpoint) | dict(meta=meta), tmp_path / 'trained.pth')
    trained = PoseEstimator(config, tmp_path / 'trained.pth', device='cpu', cfg_options=options)
    assert np.flatnonzero(~trained.annotated).tolist() == [9]


def test_what_the_network_or_the_config_does_not_allow(files, mpii, image):
    with pytest.raises(InputError, match='scales are'):
        mpii(image, scales=(80, 100, 120))
    estimator = PoseEstimator(*files('other_keypoints'), device='cpu')
    assert estimator(image, whole_image=True).keypoints.shape == (1, 14, 2)
    with pytest.raises(InputError, match='describes 16 keypoints, but the network has 14'):
        estimator(image, flip_test=True, whole_image=True)
    estimator = PoseEstimator(*files('offsets'), device='cpu')
    assert estimator(image, whole_image=True).keypoints.shape == (1, 16, 2)
    for options in (dict(scales=(1, 1.2)), dict(heatmaps=True)):
        with pytest.raises(InputError, match='predicts offsets beside heatmaps'):
            estimator(image, **options, whole_image=True)


def test_wrong_files_settings_and_devices(files, tmp_path):
    config, checkpoint = files('mpii')
    decoder = dict(type='RegressionLabel', input_size=(256, 256))
    head = dict(_delete_=True, type='RegressionHead', in_channels=16, num_joints=16, decoder=decoder)
    warp = {'test_dataloader.dataset.pipeline': [dict(type='Warp')]}
    for options, message in [
        (dict(checkpoint=files('coco')[1]), 'does not fit the config'),
        (dict(config=tmp_path / 'none.py'), 'does not exist'),
        (dict(cfg_options=warp), "small.py builds no test pipeline: KeyError: 'Warp is not in"),
        (dict(cfg_options={'model.head': head}), 'builds a .*PoseEstimator with a RegressionLabel'),
        (dict(device='abacus'), "The device 'abacus' cannot be used"),
        (dict(batch_size=0), 'batch_size is 0'),
    ]:
        with pytest.raises(InputError, match=message):
            PoseEstimator(**dict(config=config, checkpoint=checkpoint) | options)


def test_weights_as_training_leaves_them_bring_their_keypoints(files, tmp_path):
    config, checkpoint = files('mpii')
    weights = torch.load(checkpoint)['state_dict']
    mine = PoseEstimator(config, checkpoint, device='cpu').dataset_meta | dict(dataset_name='mine')
    state = {f'module.{name}': value for name, value in weights.items()}
    for meta, dataset in ((mine, 'mine'), (3, 'mpii'), (dict(a=1), 'mpii')):  # odd ones are not used
        torch.save(dict(state_dict=state, meta=dict(dataset_meta=meta)), tmp_path / 'trained.pth')
        estimator = PoseEstimator(config, tmp_path / 'trained.pth', device='cpu')
        assert estimator.dataset_meta['dataset_name'] == dataset
        torch.testing.assert_close(estimator.model.state_dict(), weights, rtol=0, atol=0)


def test_the_metainfo_of_mmposes_data_sets_is_found_without_a_warning(files, recwarn):
    meta = PoseEstimator(*files('coco'), device='cpu').dataset_meta
    assert meta['dataset_name'] == 'coco' and meta['keypoint_id2name'][16] == 'right_ankle'
    assert not [warning for warning in recwarn if 'metainfo' in str(warning.message)]


def test_the_threshold_of_a_test_holds_for_the_weights_that_were_tested(tmp_path):
    shipped = shipped_networks()[DEFAULT]
    checkpoint = shutil.copy(shipped.checkpoint, tmp_path / 'network.pth')
    assert PoseEstimator(shipped.config, checkpoint, 'cpu').kpt_thr == KPT_THR
    write_kpt_thr(checkpoint, 0.125)
    estimator = PoseEstimator(shipped.config, checkpoint, 'cpu')
    assert estimator.kpt_thr == estimator(np.zeros((20, 20, 3), np.uint8)).kpt_thr == 0.125
    with open(checkpoint, 'ab') as file:
        file.write(b'0')  # other weights of the same name
    assert kpt_thr_of(checkpoint) == KPT_THR
