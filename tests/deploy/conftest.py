import json

import cv2
import numpy as np
import pytest
import torch

from hg_plugin.inference.pose_estimator import PoseEstimator

SIZE = 96, 64  # different width and height, so that neither is taken for the other


@pytest.fixture
def onnx(onnx_export):
    return pytest.importorskip('onnx')


@pytest.fixture(scope='session')
def codec():
    """The small network's codec."""
    return dict(type='MSRAHeatmap', input_size=SIZE, heatmap_size=(24, 16), sigma=2)


@pytest.fixture(scope='session')
def trained(make_network, codec):
    """Config and checkpoint of a small network, with MMPose's transforms."""
    pipeline = [dict(type=t) for t in ('LoadImage', 'GetBBoxCenterScale', 'TopdownAffine', 'PackPoseInputs')]
    pipeline[2]['input_size'] = SIZE
    parts = {'model.codec': codec, 'model.backbone': dict(channels=16, depth=1)}
    return make_network('hg_2stack_mpii.py', **parts, **{'test_dataloader.dataset.pipeline': pipeline})


@pytest.fixture(scope='session')
def run_onnx():
    """Runs an ONNX file on images, and returns its outputs."""

    def run_onnx(path, images):
        onnxruntime = pytest.importorskip('onnxruntime')
        return onnxruntime.InferenceSession(str(path)).run(None, {'image': images})

    return run_onnx


@pytest.fixture(scope='session')
def heatmaps_of_torch(trained):
    """Computes the small network's last heatmaps."""

    @torch.no_grad()
    def heatmaps_of_torch(image):
        model = PoseEstimator(*trained, device='cpu').model
        return model.head.forward(model.backbone(torch.from_numpy(image)))[-1].numpy()

    return heatmaps_of_torch


@pytest.fixture(scope='session')
def images():
    """Makes normalized images (count, 3, 64, 96) of blurred noise."""

    def images(count, seed=0):
        noise = np.random.RandomState(seed).standard_normal((count, 8, 12, 3)).astype(np.float32)
        blurred = np.stack([cv2.resize(image, SIZE, interpolation=cv2.INTER_CUBIC) for image in noise])
        return blurred.transpose(0, 3, 1, 2).copy()

    return images


@pytest.fixture(scope='session')
def check_metadata():
    """Checks the small network's metadata, JSON by name."""

    def check_metadata(values):
        values = {key: json.loads(value) for key, value in values.items()}
        assert values['input_size'] == [96, 64] and values['codec']['type'] == 'MSRAHeatmap'
        assert values['color'] == 'RGB' and values['unannotated_keypoints'] == []
        assert values['crop'] == dict(padding=1.25, use_udp=False, reduce=False)
        assert (values['mean'], values['std']) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
        assert len(values['keypoint_names']) == 16 and values['keypoint_names'][9] == 'head_top'
        assert [8, 9] in values['skeleton']

    return check_metadata


@pytest.fixture(scope='session')
def decoded_by_mmpose():
    """Decodes heatmaps (N, K, H, W) with a codec of MMPose."""

    def decoded_by_mmpose(heatmaps, codec):
        keypoints, scores = zip(*map(codec.decode, heatmaps))
        return np.concatenate(keypoints), np.concatenate(scores)

    return decoded_by_mmpose
