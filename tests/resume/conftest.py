import os
import shutil
import signal

import pytest
from toy_training import train

from hg_plugin.engine.resume.lock import lock_folder, locked


@pytest.fixture(scope='session')
def two_epochs(tmp_path_factory):
    """A work directory of a training of two epochs of three."""
    work_dir = tmp_path_factory.mktemp('two_epochs')
    train(work_dir, train_cfg=dict(max_epochs=2))
    return work_dir


@pytest.fixture
def stopped(two_epochs, tmp_path):
    """A copy of it, to resume."""
    return shutil.copytree(two_epochs, tmp_path / 'stopped')


@pytest.fixture
def holder(tmp_path):
    """The number of another process, which has locked the folder."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        lock = lock_folder(str(tmp_path))
        os.write(write, b'.')
        signal.pause()
        lock.release()
    os.read(read, 1)
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    with locked(str(tmp_path)):  # no lock is left
        pass
