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
def test_onnx_runtime_agrees_with_pose_estimator(onnx, real_data, tmp_path, monkeypatch, capsys):
    photographs, pose = real_data('mpii_test_pictures'), tmp_path / 'pose.onnx'
    config, checkpoint = map(str, config_and_checkpoint(None, None))
    # what an option changes goes into the file, too
    options = {'test_dataloader.dataset.pipeline.0.padding': 1.3}
    export(config, checkpoint, str(pose), decode=True, cfg_options=options)
    estimator = PoseEstimator(device='cpu', cfg_options=options)
    plain = PoseEstimator(device='cpu')
    for name, box in [
        ('025508722.jpg', [260, 40, 720, 580]),
        ('083600304.jpg', [600, 200, 900, 1000]),
        ('083600304.jpg', [1260, 180, 1990, 1100]),  # over the edge
        ('031130770.jpg', None),
    ]:
        image = photographs / name
        monkeypatch.setattr(sys, 'argv', ['onnx_runtime.py', *map(str, (pose, image, *(box or [])))])
        runpy.run_path(str(ROOT / 'examples/onnx_runtime.py'))
        rows = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert rows[9][0] == 'head_top'
        found = np.array([row[1:] for row in rows], float)
        poses = estimator(image, [box] if box else None, whole_image=True)
        np.testing.assert_allclose(found[:, :2], poses.keypoints[0], atol=1)
        scores = poses.scores[0, estimator.annotated]
        np.testing.assert_allclose(found[estimator.annotated, 2], scores, atol=0.02)
        other = plain(image, [box] if box else None, whole_image=True)
        assert np.abs(other.keypoints - poses.keypoints).max() > 1
