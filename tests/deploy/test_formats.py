"""What is written in each format computes what torch does."""

import json
import signal

import cv2
import numpy as np
import pytest
import torch
from exported import CODEC, check_metadata, decoded_by_mmpose, images, run_onnx
from mmpose.registry import KEYPOINT_CODECS
from torch import nn

from hg_plugin.apis import PoseEstimator, export
from hg_plugin.deploy.ncnn import ncnn_runner
from hg_plugin.deploy.openvino import core, openvino_runner
from hg_plugin.models.reparameterize import reparameterize
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.heatmaps import heatmap_peaks


def test_onnx_gives_heatmaps_of_any_batch_with_fewer_operations(trained, onnx, heatmaps_of_torch, tmp_path):
    out = tmp_path / 'new' / 'small.onnx'
    differences = export(*trained, str(out))
    assert list(out.parent.iterdir()) == [out]
    assert 0 <= differences['heatmaps'] < 1e-4

    for count in (1, 5):
        image = images(count)
        expected = heatmaps_of_torch(image)
        (found,) = run_onnx(out, image)
        assert found.shape == (count, 16, 16, 24)
        assert np.abs(found - expected).max() < 1e-4 * expected.std()

    model = onnx.load(str(out))
    onnx.checker.check_model(model, full_check=True)
    check_metadata({entry.key: entry.value for entry in model.metadata_props})
    nodes = model.graph.node
    kinds = [node.op_type for node in nodes]
    assert set(kinds) == {'Conv', 'Relu', 'BatchNormalization', 'Add', 'MaxPool', 'Resize'}
    # one a stack, and the stem's pooling
    assert kinds.count('Resize') == 2 and kinds.count('MaxPool') == 1 + 2
    folded = reparameterize(PoseEstimator(*trained, device='cpu').model)
    assert kinds.count('Conv') == sum(isinstance(module, nn.Conv2d) for module in folded.modules())
    convolved = {node.output[0] for node in nodes if node.op_type == 'Conv'}
    norms = [node for node in nodes if node.op_type == 'BatchNormalization']
    assert not [node.name for node in norms if node.input[0] in convolved]
    assert __file__.split('/tests/')[0].encode() not in out.read_bytes()


def test_appended_decoding_is_mmposes(trained, onnx, heatmaps_of_torch, tmp_path):
    out = tmp_path / 'small.onnx'
    assert set(export(*trained, str(out), decode=True)) == {'keypoints', 'scores'}
    for count in (1, 4):
        image = images(count, seed=1)
        expected = decoded_by_mmpose(heatmaps_of_torch(image), KEYPOINT_CODECS.build(CODEC))
        for found, truth in zip(run_onnx(out, image), expected, strict=True):
            assert found.shape == truth.shape and np.abs(found - truth).max() < 1e-3


def test_a_torch_that_cannot_write_onnx(trained, tmp_path, monkeypatch, onnx):
    monkeypatch.setattr('hg_plugin.deploy.onnx.torch_before', lambda version: True)
    with pytest.raises(InputError, match='needs torch 2.7'):
        export(*trained, str(tmp_path / 'small.onnx'))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_any_height_and_width(trained, onnx, tmp_path):
    out = tmp_path / 'dynamic.onnx'
    assert export(*trained, str(out), dynamic=True)['heatmaps'] < 1e-4
    estimator = PoseEstimator(*trained, device='cpu')
    for shape in [(1, 3, 64, 96), (2, 3, 8, 40), (5, 3, 128, 72)]:
        image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = estimator.model.backbone(image)[-1].numpy()
        (found,) = run_onnx(out, image.numpy())
        assert found.shape == (shape[0], 16, shape[2] // 4, shape[3] // 4)
        assert np.abs(found - expected).max() < 1e-4 * expected.std()


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


def test_convolutions_compute_in_8_bits(int8, onnx):
    model = onnx.load(str(int8[0]))
    weights = {initializer.name: initializer for initializer in model.graph.initializer}
    made_by = {node.output[0]: node for node in model.graph.node}
    first, *convolutions, scores = [node for node in model.graph.node if node.op_type == 'Conv']
    in_float32 = [node for node in convolutions if node.input[1] in weights]
    assert len(in_float32) == 1 and len(convolutions) > 20  # the skip beside the second convolution
    convolutions.remove(in_float32[0])
    for node in (first, scores):  # these are heatmaps, or their logits
        assert weights[node.input[1]].data_type == onnx.TensorProto.FLOAT
    for node in convolutions:
        image, weight = (made_by[name] for name in node.input[:2])
        assert image.op_type == weight.op_type == 'DequantizeLinear'
        assert weights[weight.input[0]].data_type == onnx.TensorProto.INT8
        scales = onnx.numpy_helper.to_array(weights[weight.input[1]])
        assert scales.shape == (weights[weight.input[0]].dims[0],)  # one a channel
        assert np.abs(onnx.numpy_helper.to_array(weights[weight.input[0]]).astype(int)).max() <= 64
    check_metadata({entry.key: entry.value for entry in model.metadata_props})


def test_int8_decodes(onnx, trained, image_files, tmp_path):
    out = tmp_path / 'small.onnx'
    result = export(*trained, str(out), format='int8', calibration_images=image_files, decode=True)
    assert result['peaks'] > 0.5
    assert [output.name for output in onnx.load(str(out)).graph.output] == ['keypoints', 'scores']
    with pytest.raises(InputError, match='without --decode'):
        PoseEstimator(*trained, device='cpu', backend=out)


def test_the_persons_that_are_found_calibrate_int8(trained, image_files, monkeypatch):
    estimator, image = PoseEstimator(*trained, device='cpu'), image_files[0]
    boxes = np.array([[10, 20, 90, 120, 0.9], [50, 40, 150, 200, 0.8]], np.float32)
    for found, expected in ((boxes, boxes), (boxes[:0], [[0, 0, 200, 240]])):
        monkeypatch.setattr('hg_plugin.inference.pose_estimator.find_people', lambda *_, found=found: found)
        crops = torch.from_numpy(estimator(image, expected, heatmaps=True).crops).permute(0, 3, 1, 2)
        inputs = estimator.model.data_preprocessor(dict(inputs=[*crops], data_samples=[]))['inputs']
        assert torch.equal(estimator.inputs(image), inputs)


def test_openvino_runs_int8_of_any_size(onnx, image_files, tmp_path):
    """With the network of the package: in one of a few channels, OpenVINO is right in any case."""
    pytest.importorskip('openvino')
    out = tmp_path / 'pose.onnx'
    export(None, None, str(out), format='int8', calibration_images=image_files[:2], dynamic=True)
    image = PoseEstimator(device='cpu').inputs(image_files[0])[:1]
    image = torch.cat([image, image.flip(2)], dim=2)
    (expected,), (found,) = run_onnx(out, image.numpy()), openvino_runner(out)(image)
    assert np.abs(found.numpy() - expected).mean() < 0.4 * expected.std()


def test_heatmaps_are_near_those_of_float32_for_any_batch(int8, trained, image_files, tmp_path):
    export(*trained, str(tmp_path / 'float32.onnx'))
    estimator = PoseEstimator(*trained, device='cpu')
    image = torch.cat([estimator.inputs(path) for path in image_files])
    assert len(image) >= 4 and image.shape[1:] == (3, 64, 96) and image.abs().max() < 3  # normalized
    image = image.numpy()
    (expected,), (found,) = run_onnx(tmp_path / 'float32.onnx', image), run_onnx(int8[0], image)
    assert found.shape == expected.shape == (len(image), 16, 16, 24)
    assert 1e-4 < np.abs(found - expected).mean() / expected.std() < 0.1
    found, expected = (heatmap_peaks(torch.from_numpy(maps))[1] for maps in (found, expected))
    moved = (found - expected).abs().amax(dim=2)
    assert int8[1] == pytest.approx((moved <= 1).float().mean().item())


def test_openvino(trained, onnx, heatmaps_of_torch, tmp_path):
    pytest.importorskip('openvino')
    export(*trained, str(tmp_path / 'small.xml'), format='openvino')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['small.bin', 'small.xml']
    model = core().read_model(tmp_path / 'small.xml')
    check_metadata(model.get_rt_info('hg_plugin').value)
    image = images(3)
    expected = heatmaps_of_torch(image)
    found = core().compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})(image)['heatmaps']
    assert np.abs(found - expected).max() < 1e-3 * expected.std()
    # signals are handled, too, after networks that ended in the order in which they began
    runners = [openvino_runner(tmp_path / 'small.xml') for _ in range(2)]
    del runners[0]
    runners.clear()
    handled = []
    usual = signal.signal(signal.SIGTERM, lambda *_: handled.append(1))
    signal.raise_signal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, usual)
    assert handled


@pytest.fixture
def ncnn():
    pytest.importorskip('pnnx')
    return pytest.importorskip('ncnn')


def test_ncnn(ncnn, trained, onnx, heatmaps_of_torch, tmp_path):
    assert export(*trained, str(tmp_path / 'small.param'), format='ncnn')['heatmaps'] < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ['small.bin', 'small.json', 'small.param']
    values = json.loads((tmp_path / 'small.json').read_text())
    check_metadata({key: json.dumps(value) for key, value in values.items()})
    # all in convolutions
    assert {'BatchNorm', 'ReLU'}.isdisjoint((tmp_path / 'small.param').read_text().split())
    image = torch.from_numpy(images(1)).to(memory_format=torch.channels_last)
    found = ncnn_runner(str(tmp_path / 'small'), threads=1)(image)
    assert np.abs(found.numpy() - heatmaps_of_torch(images(1))).max() < 1e-4 * found.std()
    net = ncnn.Net()
    net.load_param(str(tmp_path / 'small.param'))
    net.load_model(str(tmp_path / 'small.bin'))
    for image in images(3):
        extractor = net.create_extractor()
        extractor.input('image', ncnn.Mat(image))
        status, found = extractor.extract('heatmaps')
        expected = heatmaps_of_torch(image[None])[0]
        assert status == 0 and np.abs(np.array(found) - expected).max() < 1e-4 * expected.std()


@pytest.mark.filterwarnings('ignore:.torch.jit:DeprecationWarning')
@pytest.mark.parametrize('decode', [False, True])
def test_torchscript(trained, heatmaps_of_torch, tmp_path, decode):
    out = str(tmp_path / 'small.pt')
    export(*trained, out, format='torchscript', decode=decode)
    keys = 'input_size color mean std crop keypoint_names unannotated_keypoints skeleton codec'.split()
    metadata = dict.fromkeys(keys, '')
    network = torch.jit.load(out, _extra_files=metadata)
    check_metadata(metadata)
    image = images(3)
    expected, found = [heatmaps_of_torch(image)], network(torch.from_numpy(image))
    if decode:
        expected = decoded_by_mmpose(expected[0], KEYPOINT_CODECS.build(CODEC))
    for a, b in zip(found if decode else [found], expected):
        assert np.abs(a.numpy() - b).max() < 1e-3 * np.abs(b).max()
