import numpy as np
import pytest
import torch
from mmpose.registry import KEYPOINT_CODECS
from torch import nn

from hg_plugin.deploy.export import export
from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.models.reparameterize import reparameterize
from hg_plugin.utils.errors import InputError


def test_onnx_computes_the_last_heatmaps_of_any_batch_with_fewer_operations(
    trained, onnx, images, heatmaps_of_torch, check_metadata, tmp_path
):
    import onnxruntime

    out = tmp_path / 'new' / 'small.onnx'
    differences = export(*trained, str(out))
    assert list(out.parent.iterdir()) == [out]
    assert 0 <= differences['heatmaps'] < 1e-4

    session = onnxruntime.InferenceSession(str(out))
    for count in (1, 5):
        image = images(count)
        expected = heatmaps_of_torch(image)
        (found,) = session.run(['heatmaps'], {'image': image})
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


def test_appended_decoding_is_mmposes(
    trained, onnx, images, heatmaps_of_torch, codec, decoded_by_mmpose, tmp_path
):
    import onnxruntime

    out = tmp_path / 'small.onnx'
    assert set(export(*trained, str(out), decode=True)) == {'keypoints', 'scores'}
    session = onnxruntime.InferenceSession(str(out))
    for count in (1, 4):
        image = images(count, seed=1)
        keypoints, scores = session.run(['keypoints', 'scores'], {'image': image})
        heatmaps = heatmaps_of_torch(image)
        expected_keypoints, expected_scores = decoded_by_mmpose(heatmaps, KEYPOINT_CODECS.build(codec))
        assert keypoints.shape == (count, 16, 2) and scores.shape == (count, 16)
        assert np.abs(keypoints - expected_keypoints).max() < 1e-3
        assert np.abs(scores - expected_scores).max() < 1e-5


def test_a_torch_that_cannot_write_onnx(trained, tmp_path, monkeypatch, onnx):
    monkeypatch.setattr('hg_plugin.deploy.onnx.torch_before', lambda version: True)
    with pytest.raises(InputError, match='needs torch 2.7'):
        export(*trained, str(tmp_path / 'small.onnx'))
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_any_height_and_width(trained, onnx, tmp_path):
    import onnxruntime

    out = tmp_path / 'dynamic.onnx'
    assert export(*trained, str(out), dynamic=True)['heatmaps'] < 1e-4
    session = onnxruntime.InferenceSession(str(out))
    estimator = PoseEstimator(*trained, device='cpu')
    for shape in [(1, 3, 64, 96), (2, 3, 8, 40), (5, 3, 128, 72)]:
        image = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = estimator.model.backbone(image)[-1].numpy()
        (found,) = session.run(None, {'image': image.numpy()})
        assert found.shape == (shape[0], 16, shape[2] // 4, shape[3] // 4)
        assert np.abs(found - expected).max() < 1e-4 * expected.std()
