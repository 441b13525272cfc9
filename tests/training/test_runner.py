"""The runner of the tools."""

import errno
import logging
import os
import platform
import warnings
from unittest.mock import Mock

import pytest
import torch
from toy_training import toy_config

from hg_plugin.training.runner import QuietRunner, set_backends


@pytest.mark.skipif(not os.path.exists('/dev/full'), reason='needs a device that is always full')
def test_a_full_disk_costs_lines_of_logs_and_not_the_training(tmp_path, capsys):
    # a name of its own, because loggers are shared by name and second
    runner = QuietRunner.from_cfg(toy_config(tmp_path, experiment_name='full_disk'))
    (handler,) = (each for each in runner.logger.handlers if isinstance(each, logging.FileHandler))
    handler.stream = open('/dev/full', 'w')
    runner.logger.info('a line')
    handler.stream = Mock(write=Mock(side_effect=OSError(errno.EIO, os.strerror(errno.EIO))))
    runner.logger.info('a line of a broken disk')
    handler.stream = open(os.devnull, 'w')
    (backend,) = runner.visualizer._vis_backends.values()
    backend._dump(dict(loss=1.0), '/dev/full', 'json')
    out = ''.join(capsys.readouterr())
    assert 'Traceback' not in out and '/dev/full is not complete' in out


def test_weights_that_do_not_match_are_in_the_log_and_noise_of_other_packages_is_not(tmp_path, capsys):
    workers = dict(num_workers=os.cpu_count() + 1)  # torch finds that too many
    options = dict(optim_wrapper=dict(accumulative_counts=2), train_dataloader=workers)
    runner = QuietRunner.from_cfg(toy_config(tmp_path, experiment_name='noise', **options))
    torch.save(dict(state_dict={'layer.bias': torch.zeros(3), 'other': torch.zeros(1)}), tmp_path / 'a.pth')
    runner.load_checkpoint(str(tmp_path / 'a.pth'))
    with warnings.catch_warnings(record=True) as caught:
        runner.train()
    assert not [str(each.message) for each in caught if each.category is UserWarning]
    (log,) = (path.read_text() for path in tmp_path.glob('*/*.log'))
    for text in (''.join(capsys.readouterr()), log):
        assert 'missing keys' in text and 'layer.weight' in text
        assert 'FileClient' not in text and 'HardDiskBackend' not in text


def test_backends_are_set_by_the_config():
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    for value in (False, True):
        set_backends(dict(tf32=value))
        set_backends(dict(cudnn_benchmark=True))
        assert [backend.allow_tf32 for backend in backends] == [value] * 2
    for backend, value in zip(backends, before):
        backend.allow_tf32 = value


CODE = """
import numpy as np
from hg_plugin.training.runner import set_backends
from mmengine.config import Config
from resource import RUSAGE_SELF, getrusage
env_cfg = Config.fromfile('configs/hg_2stack_mpii.py').env_cfg
for changes in (dict(keep_memory=False), {}):
    set_backends({**env_cfg, **changes})
    faults = []
    for _ in range(5):
        np.ones(10_000_000)  # 80 MB: more than the library keeps by itself
        faults.append(getrusage(RUSAGE_SELF).ru_minflt)
    print(faults[-1] - faults[-2])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='only the GNU C library can be told')
def test_freed_memory_is_used_again(run, tmp_path):
    # in a process of its own, because it cannot be taken back
    (tmp_path / 'faults.py').write_text(CODE)
    given_back, kept = map(int, run(tmp_path / 'faults.py').split())
    assert kept < 10 < given_back
