import itertools

import cv2
import numpy as np
import pytest
import torch
from exported import CODEC, decoded_by_mmpose, stock_pipeline
from mmengine.config import Config
from mmengine.registry import MODELS
from mmpose.codecs import MSRAHeatmap, UDPHeatmap

from hg_plugin.datasets import MPIIPoseDataset
from hg_plugin.deploy.decoding import ImageFormat, MSRADecoder, Redraw, UDPDecoder
from hg_plugin.deploy.export import export
from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.utils.weights import config_and_checkpoint


@pytest.fixture
def rtmlib(onnx_export):
    return pytest.importorskip('rtmlib')


@pytest.mark.parametrize('size', [(64, 64), (48, 64), (5, 3)])
def test_decoder_on_heatmaps_of_all_kinds(size):
    width, height = size
    codec = MSRAHeatmap(input_size=(4 * width, 4 * height), heatmap_size=size, sigma=2)
    random = np.random.RandomState(0)
    heatmaps = random.standard_normal((40, 16, height, width)).astype(np.float32)
    heatmaps[0] = -np.abs(heatmaps[0])  # no keypoint
    heatmaps[1] = 0
    heatmaps[2:5] = heatmaps[2:5].round()  # many equal peaks
    edges = itertools.product((0, 1, 2, width - 2, width - 1), (0, 1, 2, height - 2, height - 1))
    for index, (x, y) in enumerate(edges):
        heatmaps[8 + index, :, y, x] += 10
    keypoints, scores = MSRADecoder(codec)(torch.from_numpy(heatmaps))
    expected_keypoints, expected_scores = decoded_by_mmpose(heatmaps, codec)
    assert (expected_keypoints[:2] == -4).all()
    assert np.abs(keypoints.numpy() - expected_keypoints).max() < 1e-3
    assert np.array_equal(scores.numpy(), expected_scores)


@pytest.mark.parametrize('size, kernel', [((64, 64), 11), ((32, 48), 7)])
def test_udp_decoder(size, kernel):
    width, height = size
    codec = UDPHeatmap((4 * width, 4 * height), size, sigma=2, blur_kernel_size=kernel)
    random = np.random.RandomState(0)
    x, y = random.uniform(0, width - 1, (200, 1)), random.uniform(0, height - 1, (200, 1))
    x[:20], y[10:30] = x[:20].round(), 0  # on a pixel, and on the border
    columns, rows = (np.exp(-((np.arange(side) - p) ** 2) / 8) for side, p in ((width, x), (height, y)))
    heatmaps = (0.8 * rows[:, :, None] * columns[:, None]).reshape(20, 10, height, width)
    heatmaps += random.normal(0, 0.01, heatmaps.shape)
    heatmaps = heatmaps.astype(np.float32)
    keypoints, scores = UDPDecoder(codec)(torch.from_numpy(heatmaps))
    expected_keypoints, expected_scores = decoded_by_mmpose(heatmaps, codec)
    assert np.array_equal(scores.numpy(), expected_scores)
    assert np.abs(keypoints.numpy() - expected_keypoints).max() < 0.02


@pytest.mark.parametrize('settings', [dict(bgr_to_rgb=True, mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0]), {}])
def test_images_are_normalized_as_by_the_configs_preprocessor(settings):
    preprocessor = MODELS.build(dict(type='PoseDataPreprocessor', **settings))
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    expected = preprocessor(dict(inputs=[image], data_samples=[]))['inputs']
    own = ImageFormat.of_config(Config(dict(model=dict(data_preprocessor=settings))))
    assert torch.allclose(own.normalize(image[None].float()), expected.float(), atol=1e-5)


# the network of the package, decoded and cropped as rtmlib does
OF_RTMLIB = {
    'model.codec': dict(CODEC, _delete_=True, input_size=(128, 128), heatmap_size=(32, 32)),
    'test_dataloader.dataset.pipeline': stock_pipeline((128, 128)),
}


def test_rtmlib_finds_the_keypoints_of_the_pose_estimator_on_photographs(real_data, onnx, rtmlib, tmp_path):
    out = tmp_path / 'pose.onnx'
    ours = PoseEstimator(device='cpu', cfg_options=OF_RTMLIB)
    export(*map(str, config_and_checkpoint(None, None)), str(out), rtmlib=True, cfg_options=OF_RTMLIB)
    theirs = rtmlib.ViTPose(str(out), model_input_size=(128, 128), backend='onnxruntime')
    persons = MPIIPoseDataset('annotations/mpii_val.json', data_root=str(real_data('lspet_mpii')), indices=5)
    found = []
    for index in range(len(persons)):
        person = persons.get_data_info(index)
        image = cv2.imread(person['img_path'])
        keypoints, scores = ours(image, person['bbox'])
        their_keypoints, their_scores = theirs(image, person['bbox'])
        assert np.linalg.norm(their_keypoints - keypoints, axis=2)[:, ours.annotated].max() < 0.5
        assert np.abs(their_scores - scores)[:, ours.annotated].max() < 1e-4
        seen = person['keypoints_visible'][0] > 0
        found.append((np.linalg.norm(keypoints - person['keypoints'], axis=2)[0, seen] < 10).mean())
    assert np.mean(found) > 0.3  # or it would be keypoints of nothing that agree


def test_rtmlib_decodes_what_is_drawn_for_it(rtmlib):
    keypoints = 128 * np.random.default_rng(0).random((50, 16, 2))
    heatmaps = Redraw((128, 128))((torch.tensor(keypoints), torch.full((50, 16), 0.1)))
    estimator = object.__new__(rtmlib.ViTPose)
    found = [estimator.postprocess([person[None].numpy()], 64, np.full(2, 128))[0][0] for person in heatmaps]
    errors = np.linalg.norm(found - keypoints, axis=2)
    inside = ((keypoints > 8) & (keypoints < 120)).all(axis=2)
    assert errors[inside].max() < 0.05 and errors.max() < 5


@pytest.mark.slow
def test_rtmlib_on_a_network_of_udp(real_data, rtmlib, tmp_path):
    out = str(tmp_path / 'network.onnx')
    ours = PoseEstimator(device='cpu')
    export(ours.cfg.filename, ours.checkpoint, out, rtmlib=True)
    theirs = rtmlib.ViTPose(out, model_input_size=(128, 128), backend='onnxruntime')
    data = real_data('lspet_mpii')
    persons = MPIIPoseDataset(data_root=str(data), ann_file='annotations/mpii_val.json', indices=12)
    errors = []
    for person in map(persons.get_data_info, range(12)):
        image = cv2.imread(person['img_path'])
        keypoints, scores = ours(image, person['bbox'])
        center, half = person['bbox'].reshape(2, 2).mean(0), np.ptp(person['bbox'].reshape(2, 2), axis=0) / 2
        # rtmlib pads boxes by 1.25, this network was trained with 1.1
        found, _ = theirs(image, [[*(center - half * 1.1 / 1.25), *(center + half * 1.1 / 1.25)]])
        scale = 1.1 * 2 * half.max() / 128  # image pixels in a pixel of the input
        errors += list((found - keypoints)[scores > 0.5] / scale)
    # rtmlib's crop lies half a pixel beside that of UDP; of the same network and crops moved by as much, the
    # median is 0.85
    errors = np.array(errors)
    assert np.median(np.linalg.norm(errors, axis=1)) < 1.2
    assert np.abs(np.median(errors, axis=0)).max() < 0.3
