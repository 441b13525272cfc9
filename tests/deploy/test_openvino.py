import signal

import numpy as np
import pytest

from hg_plugin.deploy.export import export
from hg_plugin.deploy.openvino import core, openvino_runner


def test_openvino(trained, onnx, images, heatmaps_of_torch, check_metadata, tmp_path):
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
