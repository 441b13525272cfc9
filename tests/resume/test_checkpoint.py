"""Checkpoints: which are there, and when, and what happens if they cannot be written."""

import errno
import os
from unittest.mock import Mock

import pytest
import torch
from mmengine.fileio import LocalBackend
from toy_training import build, train

from hg_plugin.utils.errors import InputError


def names(work_dir):
    return sorted(path.name for path in work_dir.glob('*.pth*'))


@pytest.fixture
def events(monkeypatch):
    """The files that appear and disappear."""
    events = []
    for function, sign in ((os.replace, ''), (os.unlink, '-')):

        def watched(*paths, function=function, sign=sign):
            function(*paths)
            if not str(paths[-1]).endswith('.partial'):
                events.append(sign + os.path.basename(paths[-1]))

        monkeypatch.setattr(os, function.__name__, watched)
    return events


def test_each_is_written_once_and_before_what_it_replaces_goes(tmp_path, events):
    runner = train(tmp_path, default_hooks=dict(checkpoint=dict(max_keep_ckpts=1)))
    assert events == [
        *('epoch_1.pth', 'last_checkpoint', 'best_Mean_epoch_1.pth'),
        *('epoch_2.pth', 'last_checkpoint', '-epoch_1.pth'),
        *('best_Mean_epoch_2.pth', '-best_Mean_epoch_1.pth'),
        *('epoch_3.pth', 'last_checkpoint', '-epoch_2.pth'),
        *('best_Mean_epoch_3.pth', '-best_Mean_epoch_2.pth'),
    ]
    assert (tmp_path / 'last_checkpoint').read_text() == 'epoch_3.pth'
    info = runner.message_hub.runtime_info
    assert info['best_ckpt'] == str(tmp_path / 'best_Mean_epoch_3.pth') and info['best_score'] == 3
    assert 'optimizer' not in torch.load(tmp_path / 'best_Mean_epoch_3.pth')


@pytest.mark.slow
def test_the_best_of_several_metrics_by_iteration_in_another_folder(tmp_path):
    scores = [dict(Mean=mean, loss=loss) for mean, loss in ((0, 9), (1, 3), (5, 2), (2, 1), (4, 0), (9, 9))]
    hook = dict(by_epoch=False, interval=2, save_best=['Mean', 'loss'], rule=['greater', 'less'])
    options = dict(
        train_cfg=dict(_delete_=True, by_epoch=False, max_iters=4, val_interval=1),
        val_evaluator=dict(scores=scores, every=1),
        default_hooks=dict(checkpoint=dict(out_dir=str(tmp_path / 'out'), **hook)),
        param_scheduler=None,
    )
    train(tmp_path / 'run', **options)
    out = tmp_path / 'out/run'
    assert names(out) == ['best_Mean_iter_2.pth', 'best_loss_iter_4.pth', 'iter_2.pth', 'iter_4.pth']
    assert names(tmp_path / 'run') == []
    # the checkpoint was written before the validation
    options['train_cfg']['max_iters'] = 5
    train(tmp_path / 'run', resume=True, **options)
    assert names(out) == ['best_Mean_iter_5.pth', 'best_loss_iter_4.pth', 'iter_4.pth', 'iter_5.pth']


def test_a_resumed_run_knows_the_best_and_repeats_the_validation(tmp_path):
    options = dict(val_evaluator=dict(scores=[0, 5, 7, 6, 8]))
    train(tmp_path, train_cfg=dict(max_epochs=2), **options)
    # as if the run had been killed in its second validation
    (tmp_path / 'best_Mean_epoch_2.pth').rename(tmp_path / 'best_Mean_epoch_1.pth')
    (tmp_path / 'epoch_3.pth.partial').write_text('cut off')
    (tmp_path / 'notes.partial').write_text("the user's")
    train(tmp_path, resume=True, **options)
    assert names(tmp_path) == ['best_Mean_epoch_2.pth', 'epoch_2.pth', 'epoch_3.pth']
    assert (tmp_path / 'notes.partial').exists()
    train(tmp_path, resume=True, train_cfg=dict(max_epochs=4), **options)
    assert names(tmp_path) == ['best_Mean_epoch_4.pth', 'epoch_3.pth', 'epoch_4.pth']


def test_a_run_that_does_not_resume_moves_an_earlier_ones_checkpoints(tmp_path, capsys):
    train(tmp_path, train_cfg=dict(max_epochs=2), default_hooks=dict(checkpoint=dict(max_keep_ckpts=1)))
    (tmp_path / 'pretrained.pth').write_bytes(b'of the user')
    first = {path.name: path.read_bytes() for path in tmp_path.glob('*_*') if path.is_file()}
    first = {name: content for name, content in first.items() if name.endswith(('.pth', 'checkpoint'))}
    train(tmp_path, train_cfg=dict(max_epochs=1))
    (earlier,) = tmp_path.glob('earlier_*')
    moved = {path.name: path.read_bytes() for path in earlier.iterdir()}
    assert moved == first
    assert names(tmp_path) == ['best_Mean_epoch_1.pth', 'epoch_1.pth', 'pretrained.pth']
    assert 'files of an earlier run' in capsys.readouterr().out
    train(tmp_path, resume=True, train_cfg=dict(max_epochs=2))  # a resumed one moves nothing
    assert len([*tmp_path.glob('earlier_*')]) == 1 and 'epoch_2.pth' in names(tmp_path)


def fail(monkeypatch, *steps):
    """Makes the writes fail whose numbers are given, half-way, as on a full disk."""
    put, count = LocalBackend.put, iter(range(100))

    def full(backend, content, path):
        if next(count) not in steps:
            return put(backend, content, path)
        put(backend, content[: len(content) // 2], path)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(LocalBackend, 'put', full)


def test_a_full_disk_leaves_the_last_good_checkpoint_and_the_training_goes_on(tmp_path, monkeypatch, capsys):
    fail(monkeypatch, 2, 3)  # epoch_2 and its best
    train(tmp_path, val_evaluator=dict(scores=[0, 1, 3, 2]))
    out = capsys.readouterr().out
    assert out.count('epoch_2.pth was not written: No space left on device. The training continues') == 2
    assert f'the last good checkpoint is {tmp_path / "epoch_1.pth"}.' in out
    assert names(tmp_path) == ['best_Mean_epoch_3.pth', 'epoch_1.pth', 'epoch_3.pth']


@pytest.mark.parametrize('write, missing', [(4, 'epoch_3.pth'), (5, 'best_Mean_epoch_3.pth')])
def test_a_training_whose_last_checkpoint_is_not_written_fails(tmp_path, monkeypatch, write, missing):
    fail(monkeypatch, write)
    with pytest.raises(InputError, match=f'The training is complete, but .*/{missing} was not written: No '):
        train(tmp_path)
    assert missing not in names(tmp_path)
    assert (tmp_path / 'last_checkpoint').read_text() == f'epoch_{write - 2}.pth'
    monkeypatch.undo()
    train(tmp_path, resume=True)  # which writes it
    assert names(tmp_path) == ['best_Mean_epoch_3.pth', 'epoch_2.pth', 'epoch_3.pth']


@pytest.mark.parametrize('function, number', [('replace', 1), ('fsync', 1), ('fsync', 3)])
def test_a_file_whose_last_step_failed_goes_in_time(tmp_path, monkeypatch, function, number):
    """Writing last_checkpoint, or syncing the folder of epoch_1 or of its best."""
    stock, count = getattr(os, function), iter(range(100))

    def fail_once(*args):
        if next(count) == number:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        stock(*args)

    monkeypatch.setattr(os, function, fail_once)
    train(tmp_path)
    assert names(tmp_path) == ['best_Mean_epoch_3.pth', 'epoch_2.pth', 'epoch_3.pth']


def test_a_checkpoint_that_cannot_be_deleted_ends_no_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, 'unlink', Mock(side_effect=OSError(errno.EIO, os.strerror(errno.EIO))))
    train(tmp_path)
    assert f'{tmp_path / "epoch_1.pth"} cannot be deleted' in capsys.readouterr().out


@pytest.mark.slow
def test_the_best_holds_averaged_weights(tmp_path):
    train(tmp_path, custom_hooks=[dict(type='EMAHook', ema_type='ForeachEMA', momentum=0.5)])
    best, last = (torch.load(tmp_path / f'{name}_3.pth') for name in ('best_Mean_epoch', 'epoch'))
    assert torch.equal(best['state_dict']['layer.weight'], last['state_dict']['layer.weight'])
    assert not torch.equal(last['state_dict']['layer.weight'], last['ema_state_dict']['module.layer.weight'])


@pytest.mark.slow
def test_validation_alone_writes_nothing(tmp_path):
    build(tmp_path).val()
    assert names(tmp_path) == []
