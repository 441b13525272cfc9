"""One training at a time in a work directory."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from toy_training import train

from hg_plugin.engine.resume.lock import is_locked, lock_folder, locked
from hg_plugin.utils.errors import InputError


def test_another_process_is_refused_and_named_until_it_ends(holder, tmp_path):
    assert is_locked(tmp_path)
    with pytest.raises(InputError, match=f'process {holder} on'):
        lock_folder(str(tmp_path))


def test_another_thread_is_refused(tmp_path):
    with locked(str(tmp_path)), ThreadPoolExecutor() as pool:
        assert isinstance(pool.submit(lock_folder, str(tmp_path)).exception(), InputError)


def test_a_lock_counts_and_ends_with_the_block_and_with_an_error(tmp_path):
    folder = str(tmp_path)
    with pytest.raises(ZeroDivisionError), locked(folder):
        assert is_locked(folder)
        lock_folder(folder)  # of a hook, which an error does not call again
        raise ZeroDivisionError
    assert not is_locked(folder) and not is_locked(tmp_path / 'none')


def test_a_child_does_not_inherit_it(tmp_path):
    with locked(str(tmp_path)):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.read(read, 1)
            os._exit(0)
    assert not is_locked(tmp_path)
    os.write(write, b'.')
    os.waitpid(child, 0)


def test_a_run_releases_it_also_when_it_fails(tmp_path):
    one, two = tmp_path / 'one', tmp_path / 'two'
    for folder in (one, two, one):  # as in a notebook
        train(folder, train_cfg=dict(max_epochs=1))
        assert not is_locked(folder)
