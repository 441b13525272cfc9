"""Trainings that are interrupted at any iteration, in this process."""

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from torch.nn import functional
from toy_training import assert_same, forget_runners

from hg_plugin import apis
from hg_plugin.utils.errors import InputError

PERSONS, BATCH, EPOCHS = 7, 2, 3
LENGTH = 4  # iterations of an epoch


@HOOKS.register_module()
class InterruptHook(Hook):
    """Sends a signal, fails or ends a worker in an iteration; and gives the network something to draw."""

    def __init__(self, at=None, number=signal.SIGTERM, val=False):
        self.at, self.number, self.val = at, number, val

    def before_run(self, runner):
        runner.model.backbone.register_forward_hook(
            lambda module, _, outputs: [functional.dropout2d(x, 0.2, module.training) for x in outputs]
        )

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.at and self.number == 'fail':
            raise ZeroDivisionError
        if runner.iter + 1 == self.at and '/' in str(self.number):
            Path(self.number).rename(Path(self.number).with_name('gone'))
        elif runner.iter + 1 == self.at and self.number == 'worker':
            # the newest, because other tests may have left some
            max(multiprocessing.active_children(), key=lambda child: child.pid).kill()
        elif runner.iter + 1 == self.at and not self.val:
            os.kill(os.getpid(), self.number)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == self.at and self.val:
            os.kill(os.getpid(), self.number)


@pytest.fixture(scope='module')
def config(small_config):
    cfg = small_config(
        *(PERSONS, 2),
        train_cfg=dict(max_epochs=EPOCHS, val_interval=2),
        model=dict(backbone=dict(channels=4, depth=1, stem_channels=(4, 4, 4, 4))),
        default_hooks=dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=1)),
        train_dataloader=dict(batch_size=BATCH),
        val_dataloader=dict(batch_size=1),
    )
    cfg.randomness = dict()  # a new seed in every run, as in the shipped configs
    cfg.custom_hooks = [dict(type='EMAHook', ema_type='ForeachEMA', momentum=0.1)]
    cfg.test_dataloader = cfg.test_evaluator = cfg.test_cfg = None
    return cfg


@pytest.fixture(autouse=True)
def heeded_signals():
    """Also where these tests run in the background, in which shells ignore SIGINT."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def train(config, tmp_path, monkeypatch):
    seeds = iter(range(100, 200))

    def train(name='work', seed=0, resume=False, interrupt=None, options=(), iterations=False):
        """Returns the exit code and the last checkpoint."""
        forget_runners()
        np.random.seed(next(seeds))
        cfg = Config(config.to_dict())
        cfg.randomness = dict(seed=None if resume else seed)
        cfg.custom_hooks.append(dict(type='InterruptHook', **(interrupt or {})))
        if iterations:
            cfg.train_cfg = dict(by_epoch=False, max_iters=EPOCHS * LENGTH, val_interval=6)
            cfg.merge_from_dict({'default_hooks.checkpoint': dict(by_epoch=False, interval=5)})
            cfg.log_processor.by_epoch = False
            cfg.param_scheduler = [dict(type='LinearLR', begin=0, end=50, start_factor=0.01, by_epoch=False)]
        cfg.merge_from_dict(dict(options))
        code = 0
        try:
            apis.train(cfg, work_dir=str(tmp_path / name), resume=resume)
        except SystemExit as end:
            code = end.code
        latest = tmp_path / name / (tmp_path / name / 'last_checkpoint').read_text()
        return code, latest.name, torch.load(latest)

    return train


WORKERS = {
    0: {},
    1: {'train_dataloader.num_workers': 1},
    2: {'train_dataloader.num_workers': 2, 'train_dataloader.persistent_workers': True},
}


def test_a_signal_in_an_epoch_costs_nothing(train, tmp_path):
    short = {'train_cfg.max_epochs': 2, 'train_cfg.val_begin': 9}
    _, name, whole = train('whole', options={**WORKERS[1], **short})
    assert name == 'epoch_2.pth'
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    code, name, state = train(interrupt=dict(at=LENGTH + 2), options=short)
    assert (code, name, state['meta']['epoch'], state['meta']['iter']) == (85, 'preempted.pth', 1, LENGTH + 2)
    code, name, resumed = train(resume=True, options={**WORKERS[2], **short})
    assert (code, name) == (0, 'epoch_2.pth')
    assert_same(resumed, whole)
    assert not (tmp_path / 'work/preempted.pth').exists()
    assert handlers == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


@pytest.mark.parametrize('iterations', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_worker_that_ends_costs_nothing(train, capsys, iterations):
    _, _, whole = train('whole', iterations=iterations)
    handler = signal.getsignal(signal.SIGCHLD)
    interrupt = dict(at=LENGTH + 2, number='worker')
    code, name, state = train(interrupt=interrupt, options=WORKERS[2], iterations=iterations)
    assert (code, name) == (85, 'preempted.pth') and state['meta']['iter'] > LENGTH + 2
    assert 'SIGKILL' in capsys.readouterr().out
    assert signal.getsignal(signal.SIGCHLD) == handler or callable(signal.getsignal(signal.SIGCHLD))
    assert_same(train(resume=True, iterations=iterations)[2], whole)


def test_images_that_vanish_end_the_run_with_a_checkpoint(train, config, tmp_path):
    """All of them, in the middle of an epoch, as with a server of files."""
    images = Path(config.train_dataloader.dataset.data_root, 'images')
    options = {'train_dataloader.num_workers': 1, 'train_cfg.max_epochs': 2, 'train_cfg.val_begin': 9}
    _, _, whole = train('whole', options=options)
    try:
        with pytest.raises(InputError, match='read'):
            train(options=options, interrupt=dict(at=2, number=str(images)))
    finally:
        images.with_name('gone').rename(images)
    state = torch.load(tmp_path / 'work/preempted.pth')
    assert 2 <= state['meta']['iter'] < 2 * LENGTH
    assert_same(train(resume=True, options=options)[2], whole)


def test_outside_of_the_main_thread_it_trains(train):
    with ThreadPoolExecutor() as pool:
        short = {'train_cfg.max_epochs': 1, 'train_cfg.val_begin': 9}
        assert pool.submit(train, options=short).result()[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    'iterations, sampler',
    [(False, 'SeededSampler'), (True, 'SeededInfiniteSampler'), (True, 'SeededSampler')],
)
def test_interrupted_at_any_iteration(train, iterations, sampler):
    """Every iteration of one run, one after the other: each resumed run is interrupted in its next."""
    sampler = {'train_dataloader.sampler.type': sampler}
    _, _, whole = train('whole', options=sampler, iterations=iterations)
    workers = [*WORKERS.values(), {'train_dataloader.num_workers': 2}]
    for at in range(1, EPOCHS * LENGTH + 1):
        number = (signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT)[at % 4]
        options = {**sampler, **workers[at % 4]}
        code, name, state = train(
            resume=at > 1, interrupt=dict(at=at, number=number), options=options, iterations=iterations
        )
        assert (code, name, state['meta']['iter']) == (85, 'preempted.pth', at)
    code, _, resumed = train(resume=True, options=sampler, iterations=iterations)
    assert code == 0 and resumed['meta']['iter'] == EPOCHS * LENGTH
    assert_same(resumed, whole)


@pytest.mark.slow
def test_a_validation_is_broken_off_and_made_up_for(train, tmp_path):
    _, _, whole = train('whole')
    code, name, state = train(interrupt=dict(at=2 * LENGTH, val=True))
    assert (code, name, state['meta']['epoch'], state['meta']['iter']) == (85, 'preempted.pth', 2, 2 * LENGTH)
    assert not list((tmp_path / 'work').glob('best_*'))
    assert_same(train(resume=True)[2], whole)
    best = [{path.name for path in (tmp_path / name).glob('best_*')} for name in ('work', 'whole')]
    assert best[0] == best[1] and best[0]


@pytest.mark.slow
def test_gradients_that_are_accumulated_are_not_lost(train):
    options = {'optim_wrapper.accumulative_counts': 3}
    _, _, whole = train('whole', options=options)
    code, _, state = train(interrupt=dict(at=4), options=options)
    assert code == 85 and state['meta']['iter'] == 6
    assert_same(train(resume=True, options=options)[2], whole)


@pytest.mark.slow
def test_checkpoints_by_iteration_in_epochs(train):
    """MMEngine's loop starts the epoch of such a checkpoint again."""
    options = {'default_hooks.checkpoint': dict(by_epoch=False, interval=3)}
    _, _, whole = train('whole', options=options)
    for at in (5, 8):  # the last checkpoint is of iteration 3, and then 6
        with pytest.raises(ZeroDivisionError):
            train(resume=at > 5, options=options, interrupt=dict(at=at, number='fail'))
    assert_same(train(resume=True, options=options)[2], whole)


@pytest.mark.slow
@pytest.mark.parametrize(
    'sampler, batch_size, length',
    [('DefaultSampler', BATCH, EPOCHS * LENGTH), ('SeededSampler', 1, LENGTH + 2 + (7 - 4) + 7)],
)
def test_another_sampler_starts_the_epoch_again_but_no_other_batch_size(train, sampler, batch_size, length):
    options = {'train_dataloader.sampler.type': sampler}
    train(interrupt=dict(at=LENGTH + 2), options=options)
    _, name, state = train(resume=True, options={**options, 'train_dataloader.batch_size': batch_size})
    assert name == 'epoch_3.pth' and state['meta']['iter'] == length
