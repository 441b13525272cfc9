import errno
import signal

import numpy as np
import pytest
import torch

from hg_plugin.utils.checkpoint import save
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write


@pytest.fixture
def old(tmp_path):
    path = tmp_path / 'old.npz'
    path.write_bytes(b'old')
    return path


def test_the_file_takes_its_place_when_it_is_complete(old, tmp_path):
    with atomic_write(old) as file:
        np.savez(file, a=np.arange(3))
        assert old.read_bytes() == b'old'
    assert np.load(old)['a'].tolist() == [0, 1, 2] and list(tmp_path.iterdir()) == [old]
    with atomic_write(tmp_path / 'new/folder/file') as file:
        file.write(b'new')
    assert (tmp_path / 'new/folder/file').read_bytes() == b'new'


def test_two_processes_of_a_run_write_one_file_at_once(old, tmp_path, monkeypatch):
    monkeypatch.setenv('RANK', '0')
    with atomic_write(old) as first:
        monkeypatch.setenv('RANK', '1')
        with atomic_write(old) as second:
            second.write(b'one text')
        first.write(b'one text')
    assert old.read_bytes() == b'one text' and list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize(
    'error',
    [FileNotFoundError(errno.ENOENT, 'No such file', 'other.json'), OSError('truncated'), ValueError()],
)
def test_an_error_of_the_block_passes_and_leaves_the_old_file(old, tmp_path, error):
    with pytest.raises(type(error)) as raised, atomic_write(old) as file:
        file.write(b'half')
        raise error
    assert raised.value is error
    assert old.read_bytes() == b'old' and list(tmp_path.iterdir()) == [old]


@pytest.mark.parametrize('path, reason', [('old.npz/file', 'directory|exists'), ('folder', 'directory')])
def test_a_file_that_cannot_be_opened_or_replaced(old, tmp_path, path, reason):
    (tmp_path / 'folder').mkdir()
    with pytest.raises(InputError, match=reason), atomic_write(tmp_path / path):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {'old.npz', 'folder'}


@pytest.mark.parametrize(
    'write',
    [
        lambda file: file.write(bytes(2_000)),
        lambda file: file.write(bytes(10**6)),  # more than is buffered
        lambda file: save(dict(weight=torch.zeros(1_000)), file),
    ],
)
def test_a_full_disk(old, tmp_path, write):
    resource = pytest.importorskip('resource')
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, limits[1]))
    try:
        with pytest.raises(InputError, match='old.npz cannot be written: File too large'):
            with atomic_write(old) as file:
                write(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert old.read_bytes() == b'old' and list(tmp_path.iterdir()) == [old]


def test_no_text_is_read_in_the_encoding_of_the_locale(request):
    for path in request.config.rootpath.glob('hg_plugin*/**/*.py'):
        assert 'read_text()' not in path.read_text('utf-8'), path
