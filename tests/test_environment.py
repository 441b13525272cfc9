import collections
import os
import pickle
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

from hg_plugin import environment


def python(code, **env):
    result = subprocess.run([sys.executable, '-c', code], env={**os.environ, **env}, text=True, capture_output=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def test_import_gives_mmpose_without_a_word_and_leaves_no_stand_in_behind():
    out = python('''
import sys, hg_plugin
import mmpose.models, mmpose.visualization, mmpose.apis
from hg_plugin.environment import stood_in
for module in stood_in:
    assert module not in sys.modules and (module.split('.')[0] == 'mmcv' or module.split('.')[0] not in sys.modules), module
if 'mmdet.utils' in stood_in:
    assert not mmpose.apis.inferencers.base_mmpose_inferencer.has_mmdet
''')
    assert out == ''


def test_a_working_package_is_not_hidden(tmp_path):
    package = tmp_path / 'torchvision'
    package.mkdir()
    (package / '__init__.py').write_text("__version__ = '9.9'")
    (package / 'transforms.py').write_text('class ToPILImage:\n    real = True\n')
    out = python(
        'import hg_plugin, torchvision, mmpose.visualization.simcc_vis as m;'
        'print(m.ToPILImage.real, torchvision.__version__, "torchvision.transforms" in hg_plugin.environment.stood_in)',
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.getcwd()]))
    assert out.split() == ['True', '9.9', 'False']


@pytest.mark.parametrize('program, reason', [
    ("raise RuntimeError('operator torchvision::nms does not exist')", 'RuntimeError: operator torchvision::nms does not exist'),
    ('from torchvision import gone', "ImportError: cannot import name 'gone' from partially initialized module 'torchvision'"),
    (None, "ModuleNotFoundError: No module named 'torchvision.transforms'"),  # the folder that an uninstallation left
])
def test_a_broken_package_is_stood_in_for_and_leaves_no_halves(tmp_path, program, reason):
    if not program and 'torchvision.transforms' not in environment.stood_in:
        pytest.skip('torchvision is installed, and comes before an empty folder')
    package = tmp_path / 'torchvision'
    package.mkdir()
    (package / 'part.py').write_text('')
    if program:
        (package / '__init__.py').write_text(f'from . import part\n{program}')
    out = python(
        'import sys, hg_plugin; print(hg_plugin.environment.stood_in["torchvision.transforms"]);'
        'print([m for m in sys.modules if m.startswith("torchvision.")]);'
        'from mmengine.utils.dl_utils import collect_env; print("TorchVision" in collect_env())',  # as every runner does
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.getcwd()]))
    assert out.startswith(reason) and out.splitlines()[1:] == ['[]', 'False']


@pytest.mark.skipif('torchvision.transforms' not in environment.stood_in, reason='torchvision is installed')
def test_a_stand_in_that_is_used_names_the_package():
    from mmpose.visualization import simcc_vis
    with pytest.raises(ImportError, match='install torchvision'):
        simcc_vis.ToPILImage()


@pytest.fixture(params=['safe globals', 'before torch 2.6'])
def either_list(request, monkeypatch):
    """Both ways to restrict what a checkpoint may hold; the older works with any torch."""
    if request.param == 'before torch 2.6':
        monkeypatch.setattr(environment, '_has_safe_globals', lambda: False)
    elif not environment._has_safe_globals():
        pytest.skip('this torch has no such list')


@pytest.mark.usefixtures('either_list')
def test_history_buffers_load_with_weights_only(tmp_path):
    buffer = HistoryBuffer([0.5, 0.25, 1.0], [1, 1, 2])
    content = dict(buffer=buffer, scalar=np.float64(0.1), array=np.arange(3, dtype=np.uint8), state_dict=dict(w=torch.ones(2)),
                   others=({1}, torch.uint8, torch.device('cpu'), collections.Counter('a')))
    torch.save(content, tmp_path / 'a.pth')
    loaded = environment.load_weights_only(str(tmp_path / 'a.pth'))
    assert loaded['buffer'].mean() == buffer.mean() and loaded['buffer'].min(2) == 0.25
    assert loaded['others'] == content['others'] and loaded['scalar'] == content['scalar'] and (loaded['array'] == content['array']).all()


def rewrite_pickle(source, target, rewrite):
    """Copies a checkpoint with another pickle in it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, 'w') as new:
        for name in old.namelist():
            new.writestr(name, rewrite(old.read(name)) if name.endswith('data.pkl') else old.read(name))


@pytest.mark.usefixtures('either_list')
@pytest.mark.parametrize('core', [b'core', b'_core'])
def test_checkpoints_of_either_numpy_are_read(tmp_path, core):
    torch.save(np.float64(0.1), tmp_path / 'here.pth')
    own = b'_core' if b'_core' in zipfile.ZipFile(tmp_path / 'here.pth').read('here/data.pkl') else b'core'
    rewrite_pickle(tmp_path / 'here.pth', tmp_path / 'there.pth',
                   lambda pickled: pickled.replace(b'numpy.%s.multiarray' % own, b'numpy.%s.multiarray' % core))
    assert environment.load_weights_only(str(tmp_path / 'there.pth')) == 0.1


class Touch:

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


class ThroughGetattr:
    """Reaches code by way of the one getattr that HistoryBuffer's pickles need."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, '__init__')


class Attribute:
    """Changes what a later HistoryBuffer does."""

    def __reduce__(self):
        return getattr, (HistoryBuffer, 'mean'), dict(touched=True)


@pytest.mark.usefixtures('either_list')
@pytest.mark.parametrize('attack', [Touch, lambda path: ThroughGetattr(), lambda path: Attribute(), lambda path: os.system])
@pytest.mark.parametrize('zipped', [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path, attack, zipped):
    content = dict(state_dict={}, meta=attack(tmp_path / 'touched'))
    torch.save(content, tmp_path / 'evil.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError):
        environment.load_weights_only(str(tmp_path / 'evil.pth'))
    assert not (tmp_path / 'touched').exists() and not hasattr(HistoryBuffer.mean, 'touched')


def test_attributes_of_a_class_are_refused_before_torch_26(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, '_has_safe_globals', lambda: False)
    torch.save({}, tmp_path / 'empty.pth')
    # the class, what its attributes shall be, and BUILD
    attack = b'cmmengine.logging.history_buffer\nHistoryBuffer\n(N}X\x07\x00\x00\x00touchedK\x01stb.'
    rewrite_pickle(tmp_path / 'empty.pth', tmp_path / 'evil.pth', lambda pickled: attack)
    with pytest.raises(pickle.UnpicklingError, match='attributes of'):
        environment.load_weights_only(str(tmp_path / 'evil.pth'))
    assert not hasattr(HistoryBuffer, 'touched')


@pytest.mark.usefixtures('either_list')
def test_a_torchscript_program_is_not_run(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / 'evil.pth')
    with pytest.raises(RuntimeError, match='TorchScript'):
        environment.load_weights_only(str(tmp_path / 'evil.pth'))


@pytest.mark.usefixtures('either_list')
def test_a_tar_archive_is_not_unpacked(tmp_path):
    with tarfile.open(tmp_path / 'evil.pth', 'w') as archive:
        archive.add(__file__, 'storages')
    with pytest.raises((RuntimeError, pickle.UnpicklingError)):
        environment.load_weights_only(str(tmp_path / 'evil.pth'))


def test_versions_are_compared_as_numbers(monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.13.0+cu130')
    assert not environment.torch_before('2.6') and not environment.torch_before('2.13') and environment.torch_before('2.14')
    monkeypatch.setattr(torch, '__version__', '2.6.0a0+df5bbc09d1.nv24.12')  # as NVIDIA's containers have
    assert not environment.torch_before('2.6') and environment.torch_before('2.7')
    monkeypatch.setattr(torch, '__version__', '2.5.1')
    assert not environment._has_safe_globals()
    monkeypatch.setattr(torch, '__version__', '2.6.0')
    assert environment._has_safe_globals()


@pytest.mark.parametrize('old, gpu, fused', [(True, False, False), (True, True, True), (False, False, True)])
def test_optimisers_are_fused_where_torch_can(monkeypatch, old, gpu, fused):
    monkeypatch.setattr(environment, 'torch_before', lambda version: old)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='Adam', fused=True))))
    environment.fit_optimizer_to_torch(cfg)
    assert cfg.optim_wrapper.optimizer.fused == fused
    environment.fit_optimizer_to_torch(Config())


def test_optimisers_that_are_never_fused_are_not_told_to_be():
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='RMSprop', fused=True))))
    environment.fit_optimizer_to_torch(cfg)
    assert 'fused' not in cfg.optim_wrapper.optimizer


def test_the_report_for_a_bug(run):
    code, out = run('-m', 'hg_plugin')
    assert code == 0
    for heading in ('hg_plugin', 'torch', 'mmengine', 'mmcv', 'mmpose', 'numpy', 'set-up', 'GPU', 'CPU threads'):
        assert heading in out
    assert ('slim' if environment.stood_in else 'full') in out
    assert 'Traceback' not in out and 'Warning' not in out
