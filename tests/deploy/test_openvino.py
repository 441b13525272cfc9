import numpy as np
import pytest

from hg_plugin.deploy.export import export


def test_openvino(trained, onnx, images, heatmaps_of_torch, check_metadata, tmp_path):
    openvino = pytest.importorskip('openvino')
    export(*trained, str(tmp_path / 'small.xml'), format='openvino')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['small.bin', 'small.xml']
    model = openvino.Core().read_model(tmp_path / 'small.xml')
    check_metadata(model.get_rt_info('hg_plugin').value)
    image = images(3)
    expected = heatmaps_of_torch(image)
    found = openvino.compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})(image)['heatmaps']
    assert np.abs(found - expected).max() < 1e-3 * expected.std()
