import importlib.util
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from hg_plugin.deploy.export import EXPORTERS, export
from hg_plugin.utils.errors import InputError


def test_files_of_others_are_not_replaced(trained, tmp_path):
    (tmp_path / 'small.json').write_text('mine')
    with pytest.raises(
        InputError, match='small.json cannot be written.* that does not belong to .*small.param'
    ):
        export(*trained, str(tmp_path / 'small.param'), format='ncnn')
    (tmp_path / 'folder.bin').mkdir()
    with pytest.raises(InputError, match='folder.bin cannot be written, because it is a folder'):
        export(*trained, str(tmp_path / 'folder.xml'), format='openvino')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['folder.bin', 'small.json']


@pytest.mark.parametrize(
    'other, option',
    [(dict(type='UDPHeatmap'), 'rtmlib'), (dict(unbiased=True), 'rtmlib'), (dict(unbiased=True), 'decode')],
    ids=str,
)
def test_codecs_that_cannot_be_decoded(trained, write_config, tmp_path, codec, other, option):
    config = write_config(tmp_path / 'other.py', codec | other)
    key, value = next(iter(other.items()))
    message = (
        f"other.py: .* needs the codec MSRAHeatmap without unbiased .*, and this is .*'{key}': '?{value}"
    )
    with pytest.raises(InputError, match=message):
        export(config, trained[1], str(tmp_path / 'small.onnx'), **{option: True})
    assert [path.name for path in tmp_path.iterdir()] == ['other.py']


def test_arguments_that_contradict_each_other(trained, tmp_path):
    with pytest.raises(InputError, match='give only one of decode, rtmlib'):
        export(*trained, str(tmp_path / 'small.onnx'), decode=True, rtmlib=True)
    for option in ('decode', 'rtmlib'):
        with pytest.raises(InputError, match='give only one of decode, rtmlib and the formats ncnn'):
            export(*trained, str(tmp_path / 'small.param'), format='ncnn', **{option: True})
    for format, name, suffix in (
        ('onnx', 'small.pth', '.onnx'),
        ('torchscript', 'small.onnx', '.pt'),
        ('openvino', 'small', '.xml'),
        ('ncnn', 'small.bin', '.param'),
        ('tensorrt', 'small.onnx', '.onnx'),
    ):
        known = f'{suffix} for {"onnx" if format == "tensorrt" else format}'
        with pytest.raises(InputError, match=f'{name} does not fit the format {format}; .*{known}'):
            export(*trained, str(tmp_path / name), format=format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'format, checkpoint, out',
    [('torchscript', 'small.pt', 'small.pt'), ('openvino', 'small.bin', 'small.xml')],
)
def test_a_checkpoint_is_not_written_over(trained, tmp_path, format, checkpoint, out):
    source = tmp_path / checkpoint
    source.write_bytes(Path(trained[1]).read_bytes())
    with pytest.raises(InputError, match=f'{checkpoint} cannot be written.* the checkpoint'):
        export(trained[0], str(source), str(tmp_path / out), format=format)
    assert source.read_bytes() == Path(trained[1]).read_bytes()


def test_a_config_is_not_written_over(trained, tmp_path):
    config = tmp_path / 'small.json'
    Config.fromfile(trained[0]).dump(config)
    before = config.read_bytes()
    with pytest.raises(InputError, match='small.json cannot be written.* the config'):
        export(str(config), trained[1], str(tmp_path / 'small.param'), format='ncnn')
    assert config.read_bytes() == before


def test_a_file_that_differs_from_torch_is_not_written(trained, tmp_path, monkeypatch):
    to_torchscript, *others = EXPORTERS['torchscript']

    def to_something_else(network, *args):
        network[0].backbone.network.stem_conv[0].weight.data *= 1.01
        return to_torchscript(network, *args)

    monkeypatch.setitem(EXPORTERS, 'torchscript', (to_something_else, *others))
    out = tmp_path / 'small.pt'
    out.write_text('from before')
    with pytest.raises(InputError, match='was not written, because its heatmaps differ from torch'):
        export(*trained, str(out), format='torchscript')
    assert list(tmp_path.iterdir()) == [out] and out.read_text() == 'from before'


@pytest.mark.parametrize(
    'format, name, package',
    [
        ('onnx', 'small.onnx', 'onnxscript'),
        ('openvino', 'small.xml', 'openvino'),
        ('ncnn', 'small.param', 'pnnx'),
        ('ncnn', 'small.param', 'ncnn'),
    ],
)
def test_missing_packages_are_named(trained, tmp_path, monkeypatch, format, name, package):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        'importlib.util.find_spec', lambda name, *args: None if name == package else find_spec(name, *args)
    )
    with pytest.raises(InputError, match=f'pip install .*{package}'):
        export(*trained, str(tmp_path / name), format=format)
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_written(trained, tmp_path):
    (tmp_path / 'file').write_text('')
    (tmp_path / 'folder.pt').mkdir()
    for out in (tmp_path / 'file/small.pt', tmp_path / 'folder.pt'):
        with pytest.raises(InputError, match=f'{out.name} cannot be written'):
            export(*trained, str(out), format='torchscript')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'folder.pt']


def test_command_prints_the_differences_and_no_warnings(trained, onnx, run, tmp_path):
    code, out = run('tools/export.py', *trained, tmp_path / 'small.onnx', '--decode')
    assert code == 0, out
    begun, done = out.splitlines()
    assert re.search(r'differs from torch by at most \S+ in keypoints, \S+ in scores', done)
    assert (tmp_path / 'small.onnx').exists()


def test_users_mistake_is_one_sentence(trained, run, tmp_path):
    torch.save(dict(state_dict={'backbone.x': torch.ones(1)}), tmp_path / 'other.pth')
    code, out = run('tools/export.py', trained[0], tmp_path / 'other.pth', tmp_path / 'small.onnx')
    begun, error = out.splitlines()
    assert code == 1 and error.startswith('error: ') and "other.pth does not fit the config's model" in error
    assert not (tmp_path / 'small.onnx').exists()
