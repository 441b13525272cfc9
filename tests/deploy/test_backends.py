import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from hg_plugin.apis import PoseEstimator, export
from hg_plugin.engine.optim_wrapper import cpu_has_bfloat16
from hg_plugin.inference.find import _coarse
from hg_plugin.utils.errors import InputError

IMAGE = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
SUFFIXES = dict(onnxruntime='.onnx', openvino='.xml')


@pytest.fixture
def network(trained, tmp_path):
    """Config and checkpoint in a folder of the test's own."""
    config, checkpoint = trained
    return config, shutil.copy(checkpoint, tmp_path / 'small.pth')


@pytest.mark.parametrize('backend', SUFFIXES)
def test_keypoints_are_torchs_and_the_export_is_kept(network, backend, onnx, monkeypatch):
    pytest.importorskip(backend)
    expected = PoseEstimator(*network, device='cpu')(IMAGE, whole_image=True, flip_test=True)
    estimator = PoseEstimator(*network, device='cpu', backend=backend)
    found = estimator(IMAGE, whole_image=True, flip_test=True)
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-3)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert estimator(IMAGE, whole_image=True, heatmaps=True).heatmaps.shape[1] == 2

    file = Path(network[1]).with_name(f'small_heatmaps{SUFFIXES[backend]}')
    exports = []
    monkeypatch.setattr('hg_plugin.deploy.backends.export', lambda *args, **kwargs: exports.append(args))
    again = PoseEstimator(*network, device='cpu', backend=backend)
    np.testing.assert_array_equal(again(IMAGE, whole_image=True, flip_test=True).keypoints, found.keypoints)
    assert not exports
    newer = file.stat().st_mtime + 1
    os.utime(network[1], (newer, newer))
    PoseEstimator(*network, device='cpu', backend=backend)(IMAGE, whole_image=True)
    assert len(exports) == 1


def test_an_export_beside_read_only_weights_is_kept_in_the_cache(network, onnx, monkeypatch, tmp_path):
    monkeypatch.setattr('os.access', lambda _, mode: mode != os.W_OK)
    monkeypatch.setattr('torch.hub.get_dir', lambda: str(tmp_path / 'cache'))
    found = PoseEstimator(*network, device='cpu', backend='onnxruntime')(IMAGE, whole_image=True)
    assert len(found) == 1 and len([*tmp_path.glob('cache/hg_plugin/small_*_heatmaps.onnx')]) == 1
    assert not [*Path(network[1]).parent.glob('*.onnx')]


@torch.no_grad()
@pytest.mark.parametrize('backend', ['openvino', 'pose.onnx'])
def test_openvino_runs_the_coarse_pass_that_finds_persons(network, onnx, tmp_path, monkeypatch, backend):
    pytest.importorskip('openvino')
    expected = _coarse(PoseEstimator(*network, device='cpu'), IMAGE, 40.0)
    if backend != 'openvino':
        backend = str(tmp_path / backend)
        export(*network, backend, dynamic=True)
    estimator = PoseEstimator(*network, device='cpu', backend=backend)
    monkeypatch.setattr('hg_plugin.inference.pose_estimator.PoseEstimator._stages', None)
    for ours, theirs in zip(_coarse(estimator, IMAGE, 40.0), expected):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_another_backend_is_refused(network):
    with pytest.raises(InputError, match='onnxruntime'):
        PoseEstimator(*network, backend='tensorrt')


def test_bfloat16_rounds_heatmaps_where_the_cpu_has_it(network):
    estimators = [PoseEstimator(*network, device='cpu', bfloat16=on) for on in (False, True)]
    plain, rounded = (estimator(IMAGE, whole_image=True, heatmaps=True).heatmaps for estimator in estimators)
    difference = np.abs(plain - rounded).max() / plain.std()
    assert 1e-4 < difference < 0.1 if cpu_has_bfloat16() else difference == 0
    assert torch.from_numpy(rounded).dtype == torch.float32


def test_a_file_that_was_exported_runs_the_network(network, onnx, tmp_path, monkeypatch):
    file = tmp_path / 'pose.onnx'
    export(*network, str(file))
    expected = PoseEstimator(*network, device='cpu')(IMAGE, whole_image=True)
    for runner in SUFFIXES:
        pytest.importorskip(runner)
        monkeypatch.setattr('hg_plugin.deploy.backends.find_spec', lambda name, runner=runner: name == runner)
        found = PoseEstimator(*network, device='cpu', backend=str(file))(IMAGE, whole_image=True)
        np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-3)
    with pytest.raises(InputError, match='does not exist'):
        PoseEstimator(*network, device='cpu', backend=tmp_path / 'pse.onnx')
    file.write_text('no network')
    with pytest.raises(InputError, match='cannot be run'):
        PoseEstimator(*network, device='cpu', backend=file)
