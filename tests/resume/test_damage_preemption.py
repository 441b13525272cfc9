"""Trainings that are killed from outside, resumed, and compared bit by bit with uninterrupted ones."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch
from toy_training import assert_same

from hg_plugin.prepare.synthetic import make_synthetic

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
ITERATIONS = """
train_cfg = dict(_delete_=True, by_epoch=False, max_iters=60, val_interval=25)
train_dataloader['sampler'] = dict(type='SeededInfiniteSampler', shuffle=True)
default_hooks['checkpoint'] = dict(by_epoch=False, interval=7)
log_processor = dict(by_epoch=False)
"""


class Training:
    def __init__(self, folder, request, port=None):
        self.folder, self.port = folder, port
        self.root = request.config.rootpath
        self.workers = itertools.cycle(WORKERS)
        (folder / 'config.py').write_text(CONFIG.format(root=self.root))

    def start(self, name, *options):
        workers, persistent = next(self.workers)
        arguments = [str(self.folder / 'config.py'), *(['2'] if self.port else [])]
        arguments += [
            '--data-root',
            str(self.folder / 'data'),
            '--work-dir',
            str(self.folder / name),
            '--resume',
        ]
        arguments += ['--cfg-options', f'train_dataloader.num_workers={workers}']
        arguments += [f'train_dataloader.persistent_workers={persistent}', *options]
        command = ['bash', 'tools/dist_train.sh'] if self.port else [sys.executable, 'tools/train.py']
        self.log = self.folder / f'{name}.txt'
        with open(self.log, 'w') as log:
            env = {**os.environ, 'PYTHON': sys.executable, 'PORT': self.port() if self.port else ''}
            self.process = subprocess.Popen(
                [*command, *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.root,
                env=env,
                start_new_session=True,
                preexec_fn=heed_signals,
            )

    def wait_for(self, pattern, times=1):
        deadline = time.monotonic() + 600
        while len(re.findall(pattern, self.log.read_text())) < times:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def wait(self):
        """The exit code, and the processes that are left 10 seconds later at the latest."""
        family = descendants(self.process.pid)
        code = self.process.wait(timeout=900)
        return code, gone(family, 10)

    def end(self, name, *options):
        """Train to the end, and return the last checkpoint."""
        self.start(name, *options)
        code, left = self.wait()
        assert (code, left) == (0, []), self.log.read_text()[-3000:]
        return self.latest(name)

    def latest(self, name):
        folder = self.folder / name
        return torch.load(folder / (folder / 'last_checkpoint').read_text())


def heed_signals():
    """In a child, also where these tests run in the background, in which shells ignore SIGINT."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def descendants(pid):
    """All living processes below a process, from /proc."""
    below, new = [], [pid]
    while new:
        below += new
        new = [int(p) for p in os.listdir('/proc') if p.isdigit() and parent(p) in new]
    return below


def parent(pid):
    try:
        with open(f'/proc/{pid}/stat') as file:
            state, ppid = file.read().rpartition(')')[2].split()[:2]
    except OSError:
        return None
    return None if state == 'Z' else int(ppid)


def gone(pids, seconds):
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if parent(pid) is not None]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return left


@pytest.fixture
def training(tmp_path, request):
    make_synthetic(tmp_path / 'data', num_train=7, num_val=2, seed=0, num_workers=1)
    training = Training(tmp_path, request)
    yield training
    for pid in descendants(training.process.pid):
        if gone([pid], 0):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def two(training, free_port):
    """The same in two processes of torchrun."""
    training.port = free_port
    return training


ITERATION = r'Epoch\(train\)'


def test_signals_and_a_kill_in_one_process(training):
    """Five interruptions, of the whole group of processes, as by a scheduler, after a validation."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT):
        training.start('work')
        training.wait_for(ITERATION, times=6)
        os.killpg(training.process.pid, number)
        assert training.wait() == (85, []), training.log.read_text()[-3000:]
        assert 'Traceback' not in training.log.read_text()
        state = training.latest('work')
        assert f'after {state["meta"]["iter"]} iterations' in training.log.read_text()
    training.start('work')
    training.wait_for(ITERATION, times=6)
    family = descendants(training.process.pid)
    assert len(family) > 1  # there are workers
    training.process.kill()
    training.process.wait()
    assert gone(family, 3) == []
    assert_same(training.end('work'), training.end('whole'))
    assert not (training.folder / 'work/preempted.pth').exists()


def test_a_second_interrupt_ends_at_once(training):
    # an iteration takes seconds
    training.start('work', 'train_dataloader.batch_size=7', 'model.backbone.channels=256')
    training.wait_for(ITERATION)
    training.process.send_signal(signal.SIGINT)
    time.sleep(1.2)
    training.process.send_signal(signal.SIGINT)
    assert training.wait() == (-signal.SIGINT, [])


def test_a_signal_while_starting_ends_at_once(training):
    training.start('work')
    training.wait_for('Environment, config and hooks')
    training.process.send_signal(signal.SIGINT)
    code, left = training.wait()
    assert code in (85, 130) and left == []
    assert 'Traceback' not in training.log.read_text()


def test_signals_and_kills_of_two_processes(two):
    """To the launcher, to one process only, and a kill of the launcher."""

    def rank(number):
        return sorted(pid for pid in descendants(two.process.pid) if parent(pid) == two.process.pid)[number]

    for receiver, number in (
        (None, signal.SIGTERM),
        (None, signal.SIGUSR1),
        (1, signal.SIGINT),
    ):
        two.start('work')
        two.wait_for(ITERATION, times=5)
        os.kill(two.process.pid if receiver is None else rank(receiver), number)
        assert two.wait() == (85, []), two.log.read_text()[-3000:]
        assert 'Traceback' not in two.log.read_text()
    two.start('work')
    two.wait_for(ITERATION, times=5)
    family = descendants(two.process.pid)
    two.process.kill()
    two.process.wait()
    assert gone(family, 15) == []
    assert (two.folder / 'work/preempted.pth').exists()
    assert_same(two.end('work'), two.end('whole'))


def test_iterations_of_two_processes(two):
    with open(two.folder / 'config.py', 'a') as config:
        config.write(ITERATIONS)
    for number in (signal.SIGTERM, signal.SIGKILL):
        two.start('work')
        two.wait_for(r'Iter\(train\)', times=10)
        family = descendants(two.process.pid)
        for pid in family if number == signal.SIGKILL else [two.process.pid]:
            os.kill(pid, number)
        assert two.wait()[1] == []
    assert_same(two.end('work'), two.end('whole'))
