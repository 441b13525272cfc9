import json

import numpy as np
import pytest
import torch

from hg_plugin.deploy.export import export
from hg_plugin.deploy.ncnn import ncnn_runner
from hg_plugin.utils.errors import InputError

ncnn = pytest.importorskip('ncnn')
pytest.importorskip('pnnx')


def test_ncnn(trained, onnx, images, heatmaps_of_torch, check_metadata, tmp_path):
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


def test_a_network_that_pnnx_cannot_convert(trained, tmp_path, onnx, monkeypatch):
    monkeypatch.setattr('hg_plugin.deploy.ncnn.to_onnx', lambda *args: ({'.onnx': b'no network'}, None))
    with pytest.raises(InputError, match='did not convert'):
        export(*trained, str(tmp_path / 'small.param'), format='ncnn')
    assert not list(tmp_path.iterdir())
