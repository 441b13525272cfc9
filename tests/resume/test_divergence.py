"""The hook by itself; tests/resume/test_damage_data.py has whole trainings."""

import logging
from collections import deque
from types import SimpleNamespace

import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.optim import OptimWrapper

from hg_plugin.engine.resume import DivergenceHook
from hg_plugin.engine.resume.divergence import why_not_to_save
from hg_plugin.engine.resume.running_statistics import RunningStatistics
from hg_plugin.utils.errors import TrainingDiverged


@pytest.fixture
def runner(tmp_path):
    hub = MessageHub.get_instance(f'divergence_{tmp_path.name}')
    return SimpleNamespace(
        model=torch.nn.BatchNorm2d(1),
        train_dataloader=range(1000),
        optim_wrapper=SimpleNamespace(skipped=deque()),
        message_hub=hub,
        logger=logging.getLogger('test'),
        iter=0,
        hooks=[],
        work_dir=str(tmp_path),
    )


def steps(runner, flags, **options):
    """Runs the hook on steps that are skipped (1), taken (0) or only accumulate gradients (None)."""
    hook = DivergenceHook(**options)
    runner.hooks = [hook]
    hook.before_train(runner)
    for runner.iter, flag in enumerate(flags):
        hook.before_train_iter(runner, runner.iter)
        if flag is not None:
            runner.optim_wrapper.skipped.append(torch.tensor(float(flag)))
        hook.after_train_iter(runner, runner.iter)
    return hook


def test_few_bad_steps_are_counted_when_the_device_is_read(runner, caplog):
    hook = steps(runner, [0, 1, 1, 0, None, 0, 1, 0], max_skipped=3, interval=4)
    assert runner.message_hub.get_info('skipped_steps') == 3 and hook.unread == []
    assert ['2 of the last 4 steps' in record.message for record in caplog.records] == [True, False]


def test_as_many_in_a_row_as_allowed_end_the_process_with_a_code_of_its_own(runner, caplog):
    with pytest.raises(SystemExit) as end:
        steps(runner, [0, 1, 1, None, 1, 0], max_skipped=3, interval=2)
    assert isinstance(end.value, TrainingDiverged) and end.value.code == 86
    assert runner.iter == 5  # found at the next reading
    assert 'resume from the start' in caplog.records[-1].message


def test_other_wrappers_are_judged_by_the_loss(runner):
    runner.optim_wrapper = SimpleNamespace()
    hook = DivergenceHook(max_skipped=2, interval=1)
    hook.before_train(runner)
    hook.before_train_iter(runner, 0)
    hook.after_train_iter(runner, 0, outputs=dict(loss=torch.tensor(float('nan'))))
    with pytest.raises(TrainingDiverged):
        hook.after_train_iter(runner, 1, outputs=dict(loss=torch.tensor(float('inf'))))


@pytest.mark.parametrize('flags, reason', [([0, 0], None), ([0, 1], None), ([1, 1], 'the last 2 steps')])
def test_a_checkpoint_of_a_training_that_goes_wrong_is_worthless(runner, flags, reason):
    steps(runner, flags, interval=100)
    found = why_not_to_save(runner) or ''
    assert found.startswith(reason or '') and bool(found) == bool(reason)


@pytest.mark.parametrize('value', [float('nan'), float('inf'), 1e25])
def test_a_checkpoint_of_spoiled_weights_is_worthless(runner, value):
    steps(runner, [0])
    assert why_not_to_save(runner) is None
    runner.model.running_var.fill_(value)
    assert 'weights are NaN' in why_not_to_save(runner)


@pytest.mark.parametrize('kind', ['Adam', 'SGD', 'RMSprop'])
def test_the_stock_wrapper_skips_a_step_whose_gradient_is_not_finite(runner, kind):
    layer = torch.nn.Linear(2, 1)
    optimizer = getattr(torch.optim, kind)(layer.parameters(), lr=0.1)
    runner.optim_wrapper = OptimWrapper(optimizer)
    hook = DivergenceHook(interval=100)
    hook.before_train(runner)
    weights = [layer.weight.detach().clone()]
    for runner.iter, value in enumerate((1.0, float('nan'), 2.0)):
        hook.before_train_iter(runner, runner.iter)
        runner.optim_wrapper.update_params(layer(torch.full((1, 2), value)).sum())
        hook.after_train_iter(runner, runner.iter)
        weights.append(layer.weight.detach().clone())
    assert torch.stack(hook.unread).tolist() == [0, 1, 0]
    assert [bool((a != b).all()) for a, b in zip(weights, weights[1:])] == [True, False, True]
    assert all(value.isfinite().all() for state in optimizer.state.values() for value in state.values())


def test_a_bad_batch_leaves_no_trace_in_running_statistics_and_a_good_one_is_as_without():
    torch.manual_seed(0)
    good, bad = torch.randn(4, 3, 5, 5), torch.full((4, 3, 5, 5), float('inf'))
    untracked = torch.nn.BatchNorm2d(3, track_running_stats=False)
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(3), untracked)
    reference = torch.nn.BatchNorm2d(3)
    statistics = RunningStatistics(model)
    for batch in (good, bad, good * 2):
        statistics.remember()
        model(batch)
        statistics.restore()
        if batch is not bad:
            reference(batch)
    for batch in (good, good):  # of a step that is skipped
        statistics.remember()
        model(batch)
        statistics.restore(torch.ones(()))
    for name in ('running_mean', 'running_var'):
        assert torch.equal(getattr(model[0], name), getattr(reference, name))
    assert not RunningStatistics(untracked).restore(torch.ones(()))
