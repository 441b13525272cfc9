import json

import numpy as np
import pytest
import torch

from hg_plugin.deploy.export import export
from hg_plugin.deploy.ncnn import ncnn_runner
from hg_plugin.utils.errors import InputError

ncnn = pytest.importorskip('ncnn')
pnnx = pytest.importorskip('pnnx')


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


@pytest.fixture
def fake_onnx(monkeypatch):
    monkeypatch.setattr('hg_plugin.deploy.ncnn.to_onnx', lambda *args: ({'.onnx': b'no network'}, None))


def test_a_network_that_pnnx_cannot_convert(trained, tmp_path, onnx, fake_onnx):
    with pytest.raises(InputError, match='pnnx and ncnn did not convert the network'):
        export(*trained, str(tmp_path / 'small.param'), format='ncnn')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'made, message',
    [
        ('printf junk > model.ncnn.param; touch model.ncnn.bin', 'ncnn cannot read'),
        ('touch model.ncnn.param', 'ncnn cannot read|No such file'),
        ('exit 1', 'non-zero exit status'),
        (None, 'No such file or directory'),
    ],
)
def test_what_pnnx_makes_wrong_is_one_sentence(
    trained, onnx, tmp_path, monkeypatch, fake_onnx, made, message
):
    program = tmp_path / 'pnnx'
    if made:
        program.write_text(f'#!/bin/sh\n{made}\n')
        program.chmod(0o755)
    monkeypatch.setattr(pnnx, 'EXEC_PATH', str(program))
    with pytest.raises(InputError, match=f'pnnx and ncnn did not convert the network .*({message})'):
        export(*trained, str(tmp_path / 'small.param'), format='ncnn')
    assert [path.name for path in tmp_path.iterdir()] == ['pnnx'] * bool(made)
