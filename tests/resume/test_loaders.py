"""Data loaders that fail in a training: it saves, ends, and resumes with the next sample."""

import errno
import multiprocessing.connection
import os
import signal
import sys

import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader, Dataset

from hg_plugin.datasets import SeededSampler
from hg_plugin.engine.resume.loaders import GuardedLoader, _explain
from hg_plugin.utils.errors import InputError


@pytest.fixture(autouse=True)
def workers_start_as_a_runners_do():
    set_multi_processing()  # by fork, which is not the default of Python 3.14


class Numbers(Dataset):
    """Its workers do ``harm`` when they load the sample ``at``."""

    def __init__(self, harm=None, at=7):
        self.harm, self.at = harm, at

    def __len__(self):
        return 12

    def __getitem__(self, index):
        if index == self.at and self.harm and multiprocessing.parent_process():
            self.harm()
        return torch.tensor(index)


def kill(number=signal.SIGKILL):
    os.kill(os.getpid(), number)


def full(text='unable to allocate shared memory(shm): No space left on device (28)'):
    raise RuntimeError(text)


def unsendable():
    multiprocessing.queues.Queue._on_queue_feeder_error(OSError(errno.EMFILE, 'Too many open files'), None)


@pytest.mark.parametrize(
    'harm, words',
    [
        (kill, 'SIGKILL.*num_workers'),
        (lambda: kill(signal.SIGBUS), 'SIGBUS.*/dev/shm'),
        (full, '/dev/shm'),
        (unsendable, 'ulimit'),
        (lambda: full('Too many open files'), 'ulimit'),
    ],
)
@pytest.mark.parametrize('persistent', [True, False])
def test_it_loads_on_by_itself_and_tells_what_happened(harm, words, persistent):
    dataset, problems = Numbers(harm), []
    sampler = SeededSampler(dataset, shuffle=False, seed=0)
    loader = DataLoader(dataset, 2, sampler=sampler, num_workers=2, persistent_workers=persistent)
    GuardedLoader.guard(loader, problems.append)
    sampler.start = 2
    assert [batch.tolist() for batch in loader] == [[2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
    (problem,) = problems
    with pytest.raises(InputError, match=words):
        raise InputError(problem)


@pytest.mark.parametrize('reaped', [False, True])
def test_a_worker_that_ends_between_two_epochs(reaped):
    problems = []
    loader = DataLoader(Numbers(), 6, num_workers=2, persistent_workers=True)
    GuardedLoader.guard(loader, problems.append)
    epoch = [batch.tolist() for batch in loader]
    torchs = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # as PreemptionHook does, between two batches
    try:
        last = iter(loader)
        next(last), next(last)
        worker = loader._iterator._workers[0]
        worker.kill()
        multiprocessing.connection.wait([worker.sentinel])
        if reaped:
            worker.join()
        assert not list(last)  # where torch may notice it already
        assert [batch.tolist() for batch in loader] == epoch
    finally:
        signal.signal(signal.SIGCHLD, torchs)
    assert len(problems) == 1 and 'SIGKILL' in problems[0]


def test_the_worker_of_another_loader_does_not_end_one_without_workers(monkeypatch):
    def fail():
        raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed.')

    loader = DataLoader(Numbers(), 6)
    GuardedLoader.guard(loader, pytest.fail)
    monkeypatch.setattr(torch._C, '_error_if_any_worker_fails', fail)
    assert [len(batch) for batch in loader] == [6, 6]


class Ending:
    """A worker that has closed its files, and has no exit code before it is waited for."""

    pid, exitcode = 7, None

    def __init__(self, torch_tells):
        self.torch_tells = torch_tells
        self.sentinel, written = os.pipe()
        os.close(written)

    def join(self):
        self.exitcode = -signal.SIGKILL
        if self.torch_tells:  # in its handler of SIGCHLD
            raise RuntimeError('DataLoader worker (pid 7) is killed by signal: Killed.')


@pytest.mark.parametrize('torch_tells', [False, True])
def test_a_worker_that_is_about_to_end_is_waited_for(torch_tells):
    assert 'SIGKILL' in _explain(ConnectionResetError(), [Ending(torch_tells)])


@pytest.mark.parametrize('error, told', [(ConnectionResetError(), 0), (EOFError(), 0), (KeyError('a'), 1)])
def test_a_worker_does_not_tell_that_the_parent_broke_off(capfd, error, told):
    dataset = Numbers(lambda: sys.excepthook(type(error), error, None))
    loader = DataLoader(dataset, 2, num_workers=1)
    GuardedLoader.guard(loader, lambda problem: None)
    assert len(list(loader)) == 6
    assert capfd.readouterr().err.count(type(error).__name__) == told


def test_an_error_of_the_dataset_is_told_and_raised_as_it_is():
    dataset, problems = Numbers(), []
    loader = DataLoader(dataset, 2, sampler=DefaultSampler(dataset, shuffle=False), num_workers=1)
    GuardedLoader.guard(loader, problems.append)
    dataset.__class__ = type('Broken', (Numbers,), dict(__getitem__=lambda self, index: {}[index]))
    with pytest.raises(KeyError) as raised:
        list(loader)
    assert problems == [raised.value] and 'worker' not in str(raised.value)
