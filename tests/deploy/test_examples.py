"""examples/ does what the package does."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from hg_plugin.apis import PoseEstimator, export
from hg_plugin.utils.weights import config_and_checkpoint

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize('format', ['onnx', 'int8'])
def test_onnx_runtime_agrees_with_pose_estimator(onnx, real_data, tmp_path, monkeypatch, capsys, format):
    photographs, pose = real_data('mpii_test_pictures'), tmp_path / 'pose.onnx'
    config, checkpoint = map(str, config_and_checkpoint(None, None))
    # what an option changes goes into the file, too
    options = {'test_dataloader.dataset.pipeline.0.padding': 1.3}
    persons = sorted((real_data('lspet_mpii') / 'images').iterdir())[:16]
    calibration = [*map(str, persons)] if format == 'int8' else None
    settings = dict(format=format, calibration_images=calibration, decode=True, cfg_options=options)
    export(config, checkpoint, str(pose), **settings)
    estimator = PoseEstimator(device='cpu', cfg_options=options)
    plain = PoseEstimator(device='cpu')
    distances = []
    for name, box in [
        ('025508722.jpg', [260, 40, 720, 580]),
        ('083600304.jpg', [600, 200, 900, 1000]),
        ('083600304.jpg', [1260, 180, 1990, 1100]),  # over the edge
        *([('031130770.jpg', None)] if format == 'onnx' else []),  # nothing for sure, which 8 bits change
    ]:
        image = photographs / name
        monkeypatch.setattr(sys, 'argv', ['onnx_runtime.py', *map(str, (pose, image, *(box or [])))])
        runpy.run_path(str(ROOT / 'examples/onnx_runtime.py'))
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        poses, other = (
            network(image, [box] if box else None, whole_image=True) for network in (estimator, plain)
        )
        assert [row[0] for row in rows] == np.array(poses.names)[estimator.annotated].tolist()
        found = np.array([row[1:] for row in rows], float)
        expected, scores = poses.keypoints[0, estimator.annotated], poses.scores[0, estimator.annotated]
        distances += np.abs(found[:, :2] - expected).max(axis=1).tolist()
        np.testing.assert_allclose(found[:, 2], scores, atol=0.02 if format == 'onnx' else 0.2)
        assert np.abs(other.keypoints - poses.keypoints).max() > 1
    assert max(distances) <= 1 if format == 'onnx' else np.median(distances) <= 8
