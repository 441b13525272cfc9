import cv2
import numpy as np
import pytest
import torch

from hg_plugin.apis import PoseEstimator, export
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
    check_metadata({entry.key: entry.value for entry in model.metadata_props})


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


def test_it_decodes(onnx, trained, image_files, tmp_path):
    out = tmp_path / 'small.onnx'
    result = export(*trained, str(out), format='int8', calibration_images=image_files, decode=True)
    assert result['peaks'] > 0.5
    assert [output.name for output in onnx.load(str(out)).graph.output] == ['keypoints', 'scores']
    with pytest.raises(InputError, match='without --decode'):
        PoseEstimator(*trained, device='cpu', backend=out)
