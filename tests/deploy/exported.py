"""What the tests of exported networks share."""

import json

import cv2
import numpy as np
import pytest

SIZE = 96, 64  # different width and height, so that neither is taken for the other
# of the small network
CODEC = dict(type='MSRAHeatmap', input_size=SIZE, heatmap_size=(24, 16), sigma=2)


def stock_pipeline(size):
    """MMPose's transforms."""
    steps = [dict(type=t) for t in ('LoadImage', 'GetBBoxCenterScale', 'TopdownAffine', 'PackPoseInputs')]
    steps[2]['input_size'] = size
    return steps


def run_onnx(path, images):
    """Runs an ONNX file on images, and returns its outputs."""
    onnxruntime = pytest.importorskip('onnxruntime')
    return onnxruntime.InferenceSession(str(path)).run(None, {'image': images})


def images(count, seed=0):
    """Makes normalized images (count, 3, 64, 96) of blurred noise."""
    noise = np.random.RandomState(seed).standard_normal((count, 8, 12, 3)).astype(np.float32)
    blurred = np.stack([cv2.resize(image, SIZE, interpolation=cv2.INTER_CUBIC) for image in noise])
    return blurred.transpose(0, 3, 1, 2).copy()


def check_metadata(values):
    """Checks the small network's metadata, JSON by name."""
    values = {key: json.loads(value) for key, value in values.items()}
    assert values['input_size'] == [96, 64] and values['codec']['type'] == 'MSRAHeatmap'
    assert values['color'] == 'RGB' and values['unannotated_keypoints'] == []
    assert values['crop'] == dict(padding=1.25, use_udp=False, reduce=False)
    assert (values['mean'], values['std']) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    assert len(values['keypoint_names']) == 16 and values['keypoint_names'][9] == 'head_top'
    assert [8, 9] in values['skeleton']


def decoded_by_mmpose(heatmaps, codec):
    """Decodes heatmaps (N, K, H, W) with a codec of MMPose."""
    keypoints, scores = zip(*map(codec.decode, heatmaps))
    return np.concatenate(keypoints), np.concatenate(scores)
