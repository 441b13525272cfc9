import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from hg_plugin.deploy.export import export
from hg_plugin.deploy.int8 import export_int8
from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.heatmaps import heatmap_peaks

CONFIG = Path(__file__).parents[2] / 'configs/hg_2stack_synthetic.py'


@pytest.fixture(scope='module')
def onnx(onnx_export):
    return pytest.importorskip('onnx')


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Config and checkpoint of a small network."""
    folder = tmp_path_factory.mktemp('trained')
    init_default_scope('mmpose')  # before the fixture of every single test
    config = folder / 'small.py'
    config.write_text(f'_base_ = {str(CONFIG)!r}\nmodel = dict(backbone=dict(channels=16, depth=2))\n')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.5)
    torch.save(dict(state_dict=model.state_dict()), folder / 'small.pth')
    return str(config), str(folder / 'small.pth')


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp('pictures'), np.random.RandomState(0)
    for number in range(4):
        noise = random.randint(0, 255, (12, 10, 3), np.uint8)
        cv2.imwrite(
            str(folder / f'{number}.png'), cv2.resize(noise, (200, 240), interpolation=cv2.INTER_CUBIC)
        )
    return [str(path) for path in sorted(folder.iterdir())]


@pytest.fixture(scope='module')
def int8(onnx, trained, pictures, tmp_path_factory):
    """The file, and what was said of it."""
    out = tmp_path_factory.mktemp('int8') / 'small.onnx'
    near = export_int8(*trained, str(out), pictures)
    assert list(out.parent.iterdir()) == [out]
    return out, near


def heatmaps(path, image):
    import onnxruntime

    return onnxruntime.InferenceSession(str(path)).run(None, {'image': image})[0]


def test_convolutions_compute_in_8_bits(int8, onnx):
    model = onnx.load(str(int8[0]))
    weights = {initializer.name: initializer for initializer in model.graph.initializer}
    made_by = {node.output[0]: node for node in model.graph.node}
    convolutions = [node for node in model.graph.node if node.op_type == 'Conv']
    assert len(convolutions) > 20
    for node in convolutions:
        image, weight = (made_by[name] for name in node.input[:2])
        assert image.op_type == weight.op_type == 'DequantizeLinear'
        assert weights[weight.input[0]].data_type == onnx.TensorProto.INT8
        scales = onnx.numpy_helper.to_array(weights[weight.input[1]])
        assert scales.shape == (weights[weight.input[0]].dims[0],)  # one a channel
        assert np.abs(onnx.numpy_helper.to_array(weights[weight.input[0]]).astype(int)).max() <= 64
    assert json.loads({entry.key: entry.value for entry in model.metadata_props}['input_size']) == [128, 128]


def test_heatmaps_are_near_those_of_float32_for_any_batch(int8, trained, pictures, tmp_path):
    export(*trained, str(tmp_path / 'float32.onnx'))
    estimator = PoseEstimator(*trained, device='cpu')
    image = torch.cat([estimator.inputs(picture) for picture in pictures])
    assert image.shape == (4, 3, 128, 128) and image.abs().max() < 3  # normalised
    image = image.numpy()
    expected, found = heatmaps(tmp_path / 'float32.onnx', image), heatmaps(int8[0], image)
    assert found.shape == expected.shape == (4, 16, 32, 32)
    assert 1e-4 < np.abs(found - expected).mean() / expected.std() < 0.1
    after, before = (heatmap_peaks(torch.from_numpy(maps))[1] for maps in (found, expected))
    moved = (after - before).abs().amax(dim=2)
    assert int8[1] == pytest.approx((moved <= 1).float().mean().item())


def test_openvino_runs_the_file(int8, trained, pictures):
    openvino = pytest.importorskip('openvino')
    image = PoseEstimator(*trained, device='cpu').inputs(pictures[0]).numpy()
    compiled = openvino.compile_model(str(int8[0]), 'CPU')
    found, expected = compiled(image)[0], heatmaps(int8[0], image)
    assert np.abs(found - expected).mean() < 0.1 * expected.std()


def test_command(onnx, trained, pictures, run, tmp_path):
    code, out = run('tools/export.py', *trained, tmp_path / 'small.onnx', '--int8', *pictures[:2])
    assert code == 0, out
    assert 'WARNING' not in out
    assert re.search(r'small.onnx: written; on these pictures \d+\.\d% of its peaks lie within a pixel', out)
    assert (tmp_path / 'small.onnx').exists()


def test_mistakes(onnx, trained, pictures, tmp_path):
    (tmp_path / 'text.jpg').write_text('no picture')
    for arguments, message in [
        ((str(tmp_path / 'a.onnx'), []), 'needs pictures'),
        ((str(tmp_path / 'a.xml'), pictures), r'must end in \.onnx'),
        ((str(tmp_path / 'a.onnx'), [str(tmp_path / 'text.jpg')]), 'text.jpg is not an image'),
    ]:
        with pytest.raises(InputError, match=message):
            export_int8(*trained, *arguments)
    assert [path.name for path in tmp_path.iterdir()] == ['text.jpg']
