import os
import re

import cv2
import numpy as np
import pytest
import torch

from hg_plugin.deploy.export import export
from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.heatmaps import heatmap_peaks


@pytest.fixture(scope='module')
def image_files(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp('images'), np.random.RandomState(0)
    for number in range(4):
        noise = random.randint(0, 255, (12, 10, 3), np.uint8)
        image = cv2.resize(noise, (200, 240), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f'{number}.png'), image)
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope='module')
def int8(onnx_export, trained, image_files, tmp_path_factory):
    """The file, and the share of peaks that is reported for it."""
    out = tmp_path_factory.mktemp('int8') / 'small.onnx'
    result = export(*trained, str(out), format='int8', calibration_images=image_files)
    assert list(out.parent.iterdir()) == [out]
    return out, result['peaks']


def heatmaps(path, image):
    import onnxruntime

    return onnxruntime.InferenceSession(str(path)).run(None, {'image': image})[0]


def test_convolutions_compute_in_8_bits(int8, onnx, check_metadata):
    model = onnx.load(str(int8[0]))
    weights = {initializer.name: initializer for initializer in model.graph.initializer}
    made_by = {node.output[0]: node for node in model.graph.node}
    *convolutions, scores = [node for node in model.graph.node if node.op_type == 'Conv']
    assert len(convolutions) > 20
    assert weights[scores.input[1]].data_type == onnx.TensorProto.FLOAT  # heatmaps, or their logits
    for node in convolutions:
        image, weight = (made_by[name] for name in node.input[:2])
        assert image.op_type == weight.op_type == 'DequantizeLinear'
        assert weights[weight.input[0]].data_type == onnx.TensorProto.INT8
        scales = onnx.numpy_helper.to_array(weights[weight.input[1]])
        assert scales.shape == (weights[weight.input[0]].dims[0],)  # one a channel
        assert np.abs(onnx.numpy_helper.to_array(weights[weight.input[0]]).astype(int)).max() <= 64
    entries = [entry for entry in model.metadata_props if entry.key != 'onnx.infer']  # added by onnxruntime
    check_metadata({entry.key: entry.value for entry in entries})


def test_heatmaps_are_near_those_of_float32_for_any_batch(int8, trained, image_files, tmp_path):
    export(*trained, str(tmp_path / 'float32.onnx'))
    estimator = PoseEstimator(*trained, device='cpu')
    image = torch.cat([estimator.inputs(path) for path in image_files])
    assert image.shape == (4, 3, 64, 96) and image.abs().max() < 3  # normalized
    image = image.numpy()
    expected, found = heatmaps(tmp_path / 'float32.onnx', image), heatmaps(int8[0], image)
    assert found.shape == expected.shape == (4, 16, 16, 24)
    assert 1e-4 < np.abs(found - expected).mean() / expected.std() < 0.1
    found, expected = (heatmap_peaks(torch.from_numpy(maps))[1] for maps in (found, expected))
    moved = (found - expected).abs().amax(dim=2)
    assert int8[1] == pytest.approx((moved <= 1).float().mean().item())


def test_openvino_runs_the_file(int8, trained, image_files):
    openvino = pytest.importorskip('openvino')
    image = PoseEstimator(*trained, device='cpu').inputs(image_files[0]).numpy()
    compiled = openvino.compile_model(str(int8[0]), 'CPU')
    found, expected = compiled(image)[0], heatmaps(int8[0], image)
    assert np.abs(found - expected).mean() < 0.1 * expected.std()


def test_command(onnx, trained, image_files, run, tmp_path):
    folder = os.path.dirname(image_files[0])
    code, out = run('tools/export.py', *trained, tmp_path / 'small.onnx', '--int8', folder)
    assert code == 0, out
    assert 'WARNING' not in out
    assert re.search(r'small.onnx: written; on these images \d+\.\d% of its peaks lie within a pixel', out)
    assert (tmp_path / 'small.onnx').exists()


@pytest.mark.parametrize(
    'name, arguments, message',
    [
        ('a.onnx', dict(format='int8'), 'needs calibration images'),
        ('a.onnx', dict(calibration_images=['text.jpg']), 'needs calibration images'),
        ('a.xml', dict(format='int8'), r'does not fit the format int8; .*\.onnx for int8'),
        ('a.onnx', dict(format='int8', calibration_images=['text.jpg']), 'text.jpg is not an image'),
        ('a.onnx', dict(format='int8', calibration_images=['none']), 'none does not exist; give images'),
        ('a.onnx', dict(format='int8', calibration_images=['text.jpg'], decode=True), 'only one of decode'),
    ],
)
def test_mistakes(onnx, trained, tmp_path, monkeypatch, name, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'text.jpg').write_text('no image')
    with pytest.raises(InputError, match=message):
        export(*trained, str(tmp_path / name), **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ['text.jpg']
