import importlib.util
import re
import shutil

import pytest

from hg_plugin.deploy.export import EXPORTERS, export
from hg_plugin.utils.errors import InputError


@pytest.mark.parametrize('option', ['rtmlib', 'decode'])
def test_codecs_that_cannot_be_decoded(trained, tmp_path, option):
    unbiased = {'model.codec.unbiased': True}
    with pytest.raises(InputError, match='small.py: .*MSRAHeatmap without unbiased'):
        export(*trained, str(tmp_path / 'small.onnx'), cfg_options=unbiased, **{option: True})
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    'name, options, message',
    [
        ('small.onnx', dict(decode=True, rtmlib=True), 'only one of decode, rtmlib'),
        ('small.pth', dict(format='onnx'), '.onnx for onnx'),
        ('small.onnx', dict(format='tensorrt'), 'tensorrt'),
        ('small.onnx', dict(format='int8'), 'calibration images'),
        ('small.onnx', dict(calibration_images=['none']), 'no other format'),
        ('small.onnx', dict(format='int8', calibration_images=['none']), 'none does not exist'),
        ('small.onnx', dict(dynamic=True, decode=True), 'dynamic'),
        ('small.pt', dict(dynamic=True, format='torchscript'), 'dynamic'),
    ],
)
def test_arguments_that_do_not_fit(trained, tmp_path, name, options, message):
    with pytest.raises(InputError, match=message):
        export(*trained, str(tmp_path / name), **options)
    assert not list(tmp_path.iterdir())


def test_the_checkpoint_is_not_replaced(trained, tmp_path):
    checkpoint = shutil.copy(trained[1], tmp_path / 'small.bin')
    with pytest.raises(InputError, match='small.bin is the checkpoint'):
        export(trained[0], str(checkpoint), str(tmp_path / 'small.xml'), format='openvino')
    assert [*tmp_path.iterdir()] == [checkpoint]


def test_a_file_that_differs_from_torch_is_not_written(trained, tmp_path, monkeypatch):
    to_torchscript, *others = EXPORTERS['torchscript']

    def to_something_else(network, *args):
        network[0].backbone.network.stem_conv[0].weight.data *= 1.01
        return to_torchscript(network, *args)

    monkeypatch.setitem(EXPORTERS, 'torchscript', (to_something_else, *others))
    out = tmp_path / 'small.pt'
    out.write_text('from before')
    with pytest.raises(InputError, match='differ from torch'):
        export(*trained, str(out), format='torchscript')
    assert list(tmp_path.iterdir()) == [out] and out.read_text() == 'from before'


@pytest.mark.parametrize('name, package', [('small.onnx', 'onnxscript'), ('small.param', 'pnnx')])
def test_missing_packages_are_named(trained, tmp_path, monkeypatch, name, package):
    found = importlib.util.find_spec
    absent = lambda name, *args: None if name == package else found(name, *args)
    monkeypatch.setattr('importlib.util.find_spec', absent)
    with pytest.raises(InputError, match=f'pip install .*{package}'):
        export(*trained, str(tmp_path / name), format='ncnn' if package == 'pnnx' else 'onnx')
    assert not list(tmp_path.iterdir())


def test_command_prints_the_differences_and_no_warnings(trained, onnx, run, tmp_path):
    out = run('-m', 'hg_plugin', 'export', *trained, tmp_path / 'small.onnx', '--decode')
    begun, done = out.splitlines()
    assert re.search(r'differs from torch by at most \S+ in keypoints, \S+ in scores', done)
    assert (tmp_path / 'small.onnx').exists()
