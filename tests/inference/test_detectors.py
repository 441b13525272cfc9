import sys
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from hg_plugin.inference.detectors import boxes_inside, mmdet_detector, onnx_detector
from hg_plugin.utils.errors import InputError

IMAGE = np.zeros((100, 200, 3), np.uint8)  # half as large as the detector's input of 128x256


@pytest.fixture
def write_onnx(tmp_path):
    """Writes an ONNX file with a constant output for an input (1, 3, 128, 256)."""
    pytest.importorskip('rtmlib')
    pytest.importorskip('onnxruntime')
    onnx = pytest.importorskip('onnx')

    def write_onnx(**outputs):
        helper, kinds = onnx.helper, {np.float32: onnx.TensorProto.FLOAT, np.int64: onnx.TensorProto.INT64}
        nodes, values = [], []
        for name, array in outputs.items():
            tensor = onnx.numpy_helper.from_array(array)
            nodes.append(helper.make_node('Constant', [], [name], value=tensor))
            values.append(helper.make_tensor_value_info(name, kinds[array.dtype.type], array.shape))
        image = helper.make_tensor_value_info('input', onnx.TensorProto.FLOAT, (1, 3, 128, 256))
        model = helper.make_model(
            helper.make_graph(nodes, 'detector', [image], values),
            opset_imports=[helper.make_opsetid('', 17)],
            ir_version=9,
        )
        onnx.save(model, tmp_path / 'detector.onnx')
        return tmp_path / 'detector.onnx'

    return write_onnx


def test_an_onnx_file_with_nms(write_onnx):
    # 1.28 pixels of the input are one of the image
    dets = np.float32(
        [[[0, 0, 64, 128, 0.9], [12.8, 0, 64, 64, 0.2], [0, 0, 64, 64, 0.8], [200, 0, 400, 64, 0.7]]]
    )
    path = write_onnx(dets=dets, labels=np.int64([[0, 0, 16, 0]]))
    found = boxes_inside(onnx_detector(path, 'cpu'), IMAGE)
    # without the one that is unsure and the dog; clipped to the image
    np.testing.assert_allclose(found, [[0, 0, 50, 100, 0.9], [156.25, 0, 200, 50, 0.7]], rtol=1e-5)


def test_yolox_raw_output(write_onnx):
    # grids of 16x32, 8x16 and 4x8 cells; a person in one cell and a dog in another
    raw = np.zeros((1, 16 * 32 + 8 * 16 + 4 * 8, 85), np.float32)
    cell = 16 * 32 + 3 * 16 + 5  # row 3, column 5, 16 pixels a cell
    raw[0, cell, :6] = 0, 0, np.log(2), np.log(4), 0.9, 1
    raw[0, 100, :5], raw[0, 100, 5 + 16] = (0, 0, 1, 1, 0.9), 1
    found = boxes_inside(onnx_detector(write_onnx(output=raw), 'cpu', min_score=0.5), IMAGE)
    np.testing.assert_allclose(found[:, :4] * 1.28, [[64, 16, 96, 80]], rtol=1e-5)
    raw[..., 4] = 0.1
    assert boxes_inside(onnx_detector(write_onnx(output=raw), 'cpu'), IMAGE).shape == (0, 5)


def test_other_files_are_no_detectors(write_onnx, tmp_path):
    (tmp_path / 'text.onnx').write_text('no model')
    other = write_onnx(out=np.zeros((1, 84, 99), np.float32))
    for path in (tmp_path / 'text.onnx', tmp_path / 'none.onnx', other):
        with pytest.raises(InputError, match='is no detector of YOLOX'):
            onnx_detector(path, 'cpu')


def test_mmdetection_as_in_mmposes_demo(monkeypatch):
    try:
        import mmdet.apis  # noqa: F401
    except ImportError:
        with pytest.raises(InputError, match='pip install mmdet'):
            mmdet_detector('det.py', 'det.pth')
    boxes = torch.tensor([[0.0, 0, 50, 90], [1.0, 0, 50, 90], [90, 0, 150, 90], [90, 0, 150, 90]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([0, 0, 1, 0])
    mmdet = Mock(__spec__=SimpleNamespace(name='mmdet'))
    mmdet.init_detector.return_value.cfg = 'cfg'
    instances = InstanceData(bboxes=boxes, scores=scores, labels=labels)
    mmdet.inference_detector.return_value.pred_instances = instances
    for name in ('mmdet', 'mmdet.apis'):
        monkeypatch.setitem(sys.modules, name, mmdet)
    monkeypatch.setattr('mmpose.utils.adapt_mmdet_pipeline', lambda cfg: f'adapted {cfg}')
    detector = mmdet_detector('det.py', 'det.pth', 'cpu')
    mmdet.init_detector.assert_called_once_with('det.py', 'det.pth', device='cpu')
    # without the one that the first overlaps, the other category and the unsure one
    np.testing.assert_allclose(boxes_inside(detector, IMAGE), [[0, 0, 50, 90, 0.9]], rtol=1e-6)
    ((network, image), _) = mmdet.inference_detector.call_args
    assert network.cfg == 'adapted cfg' and image is IMAGE
