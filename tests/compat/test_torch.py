import collections
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer

import hg_plugin.compat.torch as compat_torch


@pytest.fixture(params=['torch', 'before torch 2.10'])
def either_list(request, monkeypatch):
    """Both ways to restrict what a checkpoint may hold; the older works with any torch."""
    if request.param == 'before torch 2.10':
        monkeypatch.setattr(compat_torch, 'torch_before', lambda version: True)
    elif compat_torch.torch_before('2.10'):
        pytest.skip('this torch is not trusted with it')


@pytest.mark.usefixtures('either_list')
def test_history_buffers_load_with_weights_only(tmp_path):
    buffer = HistoryBuffer([0.5, 0.25, 1.0], [1, 1, 2])
    others = {1}, torch.uint8, torch.device('cpu'), collections.Counter('a'), np.float64(0.1)
    content = dict(buffer=buffer, array=np.arange(3, dtype=np.uint8), others=others)
    torch.save(content, tmp_path / 'a.pth')
    loaded = compat_torch.load_weights_only(str(tmp_path / 'a.pth'))
    assert loaded['buffer'].mean() == buffer.mean() and loaded['buffer'].min(2) == 0.25
    assert loaded['others'] == others and (loaded['array'] == content['array']).all()


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
    names = b'numpy.%s.multiarray' % own, b'numpy.%s.multiarray' % core
    rewrite_pickle(tmp_path / 'here.pth', tmp_path / 'there.pth', lambda pickled: pickled.replace(*names))
    assert compat_torch.load_weights_only(str(tmp_path / 'there.pth')) == 0.1


class Call:
    """Is pickled as a call of a function, and the attributes of what it returns."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.usefixtures('either_list')
@pytest.mark.parametrize(
    'attack',
    [
        os.system,
        Call(open, ('touched', 'w')),
        # by way of the one getattr that HistoryBuffer's pickles need
        Call(getattr, (HistoryBuffer, '__init__')),
        Call(getattr, (HistoryBuffer, 'mean'), dict(touched=True)),
    ],
)
@pytest.mark.parametrize('zipped', [True, False])
def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path, monkeypatch, attack, zipped):
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={}, meta=attack), 'evil.pth', _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError):
        compat_torch.load_weights_only('evil.pth')
    assert not (tmp_path / 'touched').exists() and not hasattr(HistoryBuffer.mean, 'touched')


def test_attributes_of_a_class_are_refused_before_torch_210(monkeypatch, tmp_path):
    monkeypatch.setattr(compat_torch, 'torch_before', lambda version: True)
    torch.save({}, tmp_path / 'empty.pth')
    # the class, what its attributes shall be, and BUILD
    attack = b'cmmengine.logging.history_buffer\nHistoryBuffer\n(N}X\x07\x00\x00\x00touchedK\x01stb.'
    rewrite_pickle(tmp_path / 'empty.pth', tmp_path / 'evil.pth', lambda pickled: attack)
    with pytest.raises(pickle.UnpicklingError, match='attributes of'):
        compat_torch.load_weights_only(str(tmp_path / 'evil.pth'))
    assert not hasattr(HistoryBuffer, 'touched')


@pytest.mark.usefixtures('either_list')
def test_a_program_is_not_run_and_an_archive_not_unpacked(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), tmp_path / 'evil.pth')
    with pytest.raises(RuntimeError, match='TorchScript'):
        compat_torch.load_weights_only(str(tmp_path / 'evil.pth'))
    with tarfile.open(tmp_path / 'evil.pth', 'w') as archive:
        archive.add(__file__, 'storages')
    with pytest.raises((RuntimeError, pickle.UnpicklingError)):
        compat_torch.load_weights_only(str(tmp_path / 'evil.pth'))


@pytest.mark.parametrize(
    'own, others',
    [
        ('2.13.0+cu130', {'2.6': False, '2.13': False, '2.14': True}),
        ('2.6.0a0+df5bbc09d1.nv24.12', {'2.6': False, '2.7': True}),  # as NVIDIA's containers have
        ('2.5.1', {'2.6': True, '2.10': True}),
    ],
)
def test_versions_are_compared_as_numbers(monkeypatch, own, others):
    monkeypatch.setattr(torch, '__version__', own)
    assert {version: compat_torch.torch_before(version) for version in others} == others


@pytest.mark.parametrize('old, gpu, fused', [(True, False, False), (True, True, True), (False, False, True)])
def test_optimisers_are_fused_where_torch_can(monkeypatch, old, gpu, fused):
    monkeypatch.setattr(compat_torch, 'torch_before', lambda version: old)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    cfg = Config(dict(optim_wrapper=dict(optimizer=dict(type='Adam', fused=True))))
    compat_torch.fit_optimizer_to_torch(cfg)
    assert cfg.optim_wrapper.optimizer.fused == fused
    cfg.optim_wrapper.optimizer.type = 'RMSprop'  # which is never fused
    compat_torch.fit_optimizer_to_torch(cfg)
    assert 'fused' not in cfg.optim_wrapper.optimizer
    compat_torch.fit_optimizer_to_torch(Config())
