"""Trainings that are killed from outside, resumed, and compared bit by bit with uninterrupted ones."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from toy_training import assert_same

pytestmark = pytest.mark.slow

CONFIG = """
_base_ = ['{root}/configs/hg_2stack_synthetic.py']
model = dict(backbone=dict(channels=4, depth=1))
train_dataloader = dict(batch_size=2)
val_dataloader = dict(num_workers=1, persistent_workers=True)
train_cfg = dict(max_epochs=30, val_interval=1)
custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', ema_type='ForeachEMA', momentum=0.1)]
default_hooks = dict(logger=dict(interval=1), preemption=dict(interval=2))
"""
WORKERS = [(2, True), (0, False), (1, False), (2, False), (1, True)]
ITERATION = r'Epoch\(train\)'


class Training:
    def __init__(self, folder, root, data):
        self.folder, self.root, self.data, self.port = folder, root, data, None
        self.workers = itertools.cycle(WORKERS)
        (folder / 'config.py').write_text(CONFIG.format(root=root))

    def start(self, name, *options, iterations=0):
        """In one process, or with a port in two of torchrun; returns after so many iterations."""
        workers, persistent = next(self.workers)
        command = ['bash', 'tools/dist_train.sh'] if self.port else [sys.executable, 'tools/train.py']
        command += [self.folder / 'config.py', *(['2'] if self.port else [])]
        command += ['--data-root', self.data, '--work-dir', self.folder / name, '--resume']
        command += ['--cfg-options', *options]
        command += [f'train_dataloader.num_workers={workers}']
        command += [f'train_dataloader.persistent_workers={persistent}']
        self.log = self.folder / f'{name}.txt'
        own = dict(PYTHON=sys.executable, PORT=self.port() if self.port else '', FOLDER=str(self.folder))
        settings = dict(cwd=self.root, start_new_session=True, preexec_fn=heed_signals)
        settings.update(env={**os.environ, **own}, stderr=subprocess.STDOUT)
        with open(self.log, 'w') as log:
            self.process = subprocess.Popen(command, stdout=log, **settings)
        self.wait_for(ITERATION, times=iterations)

    def wait_for(self, pattern, times=1):
        deadline = time.monotonic() + 600
        while len(re.findall(pattern, self.log.read_text())) < times:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def family(self, *settings):
        """All its processes that live and have these settings in their environment."""
        found = []
        for file in Path('/proc').glob('[0-9]*/environ'):
            try:
                environment = file.read_text().split('\0')
            except (OSError, UnicodeDecodeError):
                continue
            if {f'FOLDER={self.folder}', *settings} <= {*environment}:
                found.append(int(file.parent.name))
        return sorted(found)

    def left(self, seconds):
        """The processes that are left after so many seconds at the latest."""
        deadline = time.monotonic() + seconds
        while self.family() and time.monotonic() < deadline:
            time.sleep(0.1)
        return self.family()

    def wait(self):
        """The exit code, and the processes that are left."""
        code, left = self.process.wait(timeout=900), self.left(10)
        assert 'Traceback' not in self.log.read_text()
        return code, left

    def kill(self, seconds):
        """Kill the first process alone: the others end by themselves."""
        assert len(self.family()) > 1
        self.process.kill()
        self.process.wait()
        assert not self.left(seconds)

    def end(self, name, *options):
        """Train to the end, and return the last checkpoint."""
        self.start(name, *options)
        assert self.wait() == (0, []), self.log.read_text()[-3000:]
        return self.latest(name)

    def latest(self, name):
        folder = self.folder / name
        return torch.load(folder / (folder / 'last_checkpoint').read_text())


def heed_signals():
    """In a child, also where these tests run in the background, in which shells ignore SIGINT."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def training(tmp_path, request, synthetic):
    training = Training(tmp_path, request.config.rootpath, synthetic(7, 2))
    yield training
    for pid in training.family():
        os.kill(pid, signal.SIGKILL)


def test_signals_and_a_kill_in_one_process(training):
    """Five interruptions, of the whole group of processes, as by a scheduler, after a validation."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT):
        training.start('work', iterations=6)
        os.killpg(training.process.pid, number)
        assert training.wait() == (85, []), training.log.read_text()[-3000:]
        state = training.latest('work')
        assert f'after {state["meta"]["iter"]} iterations' in training.log.read_text()
    training.start('work', iterations=6)
    training.kill(3)
    assert_same(training.end('work'), training.end('whole'))
    assert not (training.folder / 'work/preempted.pth').exists()


def test_a_second_interrupt_ends_at_once(training):
    # an iteration takes seconds
    training.start('work', 'train_dataloader.batch_size=7', 'model.backbone.channels=256', iterations=1)
    training.process.send_signal(signal.SIGINT)
    time.sleep(1.2)
    training.process.send_signal(signal.SIGINT)
    assert training.wait() == (-signal.SIGINT, [])


def test_a_signal_while_starting_ends_at_once(training):
    training.start('work')
    training.wait_for('Environment, config and hooks')
    training.process.send_signal(signal.SIGINT)
    assert training.wait() in ((85, []), (130, []))


def test_signals_and_kills_of_two_processes(training, free_port):
    """To the launcher, to one process only, and a kill of the launcher."""
    training.port = free_port
    for settings, number in (([], signal.SIGTERM), ([], signal.SIGUSR1), (['RANK=1'], signal.SIGINT)):
        training.start('work', iterations=5)
        os.kill(training.family(*settings)[0] if settings else training.process.pid, number)
        assert training.wait() == (85, []), training.log.read_text()[-3000:]
    training.start('work', iterations=5)
    training.kill(15)
    assert (training.folder / 'work/preempted.pth').exists()
    assert_same(training.end('work'), training.end('whole'))
