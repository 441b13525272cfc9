"""The runner of the tools."""

import errno
import logging
import os
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


def test_backends_are_set_by_the_config():
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    for value in (False, True):
        set_backends(dict(tf32=value))
        set_backends(dict(cudnn_benchmark=True))
        assert [backend.allow_tf32 for backend in backends] == [value] * 2
    for backend, value in zip(backends, before):
        backend.allow_tf32 = value
