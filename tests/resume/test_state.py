"""Resuming from a checkpoint that does not fit, and with a config that has changed."""

import pytest
import torch
from toy_training import build, train

from hg_plugin.engine.resume.state import check_training
from hg_plugin.utils.errors import InputError

# what is done to the moments of the first parameter, or to the checkpoint
DAMAGES = {
    r'exp_avg of parameter 0 \(3, 9\) for \(3, 4\) has another shape': lambda adam, _: adam.update(
        exp_avg=torch.zeros(3, 9)
    ),
    'exp_avg of parameter 0 is of another type': lambda adam, _: adam.update(exp_avg=adam['exp_avg'] * 1j),
    'exp_avg_sq of parameter 0 is not finite': lambda adam, _: adam['exp_avg_sq'].fill_(torch.nan),
    'not of Adam, but of one with .*exp_inf': lambda adam, _: adam.update(exp_inf=adam.pop('exp_avg_sq')),
    'layer.weight is not finite': lambda _, state: state['state_dict']['layer.weight'].fill_(torch.inf),
    'layer.weight is missing': lambda _, state: state['state_dict'].pop('layer.weight'),
    r'have \[2, 2\] parameters, and those of the config \[2\]': lambda _, state: state['optimizer'].update(
        param_groups=state['optimizer']['param_groups'] * 2
    ),
}


@pytest.fixture(scope='module')
def built(two_epochs):
    """A runner with its optimizer."""
    runner = build(two_epochs)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    return runner


@pytest.mark.parametrize('message', DAMAGES)
def test_a_checkpoint_that_does_not_fit_is_told_in_a_sentence(built, two_epochs, message):
    state = torch.load(two_epochs / 'epoch_2.pth')
    check_training(built, state, 'epoch_2.pth')
    DAMAGES[message](state['optimizer']['state'][0], state)
    with pytest.raises(InputError, match=message) as error:
        check_training(built, state, 'epoch_2.pth')
    assert 'epoch_2.pth' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize(
    'changes, message',
    [
        (dict(model=dict(width=3)), 'model: layer.weight .* has another shape'),
        (dict(optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, _delete_=True))), 'not of SGD.*amsgrad'),
    ],
)
def test_a_checkpoint_is_checked_before_the_first_step(stopped, changes, message):
    before = (stopped / 'epoch_2.pth').read_bytes()
    with pytest.raises(InputError, match=message):
        train(stopped, resume=True, **changes)
    assert (stopped / 'epoch_2.pth').read_bytes() == before and not (stopped / 'epoch_3.pth').exists()


def rates(work_dir, capsys, **options):
    """The learning rates of a training at the end of every iteration, and its log."""
    capsys.readouterr()
    runner = train(work_dir, **options)
    buffer = runner.message_hub.get_scalar('train/lr')
    return buffer.data[0].tolist(), capsys.readouterr()


ADAM = dict(optimizer=dict(type='Adam', lr=0.02, weight_decay=0.1))
MILESTONE = [
    dict(type='LinearLR', begin=0, end=4, start_factor=0.1, by_epoch=False),
    dict(type='MultiStepLR', begin=0, end=3, milestones=[1], gamma=0.5, by_epoch=True),
]
COSINE = [dict(type='CosineAnnealingLR', begin=0, end=3, T_max=3, eta_min=1e-4, by_epoch=True)]
CHANGED = dict(
    rate=(dict(optim_wrapper=ADAM), 'initial_lr: 0.01 to 0.02; lr: 0.001 to 0.002; weight_decay: 0 to 0.1.'),
    milestone=(dict(param_scheduler=MILESTONE), 'lr: 0.001 to 0.005.'),
    cosine=(dict(param_scheduler=COSINE), 'lr: 0.001 to'),
    constant=(dict(param_scheduler=None), 'lr: 0.001 to 0.01'),
)


@pytest.mark.parametrize(
    'change', ['rate', *(pytest.param(name, marks=pytest.mark.slow) for name in [*CHANGED][1:])]
)
def test_what_the_config_changes_takes_effect_and_is_told(stopped, tmp_path, capsys, change):
    options, message = CHANGED[change]
    whole, _ = rates(tmp_path / 'whole', capsys, **options)
    resumed, (out, err) = rates(stopped, capsys, resume=True, **options)
    assert resumed[-2:] == pytest.approx(whole[-2:], rel=1e-6)
    assert f'The config has changed since the checkpoint, and takes effect: {message}' in out + err


def test_an_unchanged_config_resumes_bit_by_bit_and_says_nothing(stopped, tmp_path, capsys):
    whole = train(tmp_path / 'whole')
    capsys.readouterr()
    resumed = train(stopped, resume=True)
    out = ''.join(capsys.readouterr())
    assert 'The config has changed' not in out and 'nothing is left' not in out
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict(), rtol=0, atol=0)


@pytest.mark.slow
def test_the_length_of_the_training_and_of_an_epoch(stopped, capsys):
    options = dict(train_cfg=dict(max_epochs=5), train_dataloader=dict(batch_size=2))
    runner = train(stopped, resume=True, **options)
    assert (runner.epoch, runner.iter) == (5, 4 + 3 * 4)
    train(stopped, resume=True, train_cfg=dict(max_epochs=4))
    assert 'nothing is left to train' in ''.join(capsys.readouterr())


@pytest.mark.slow
def test_several_parameter_groups(tmp_path, capsys):
    wrapper = dict(paramwise_cfg=dict(bias_lr_mult=2.0), optimizer=dict(type='SGD', lr=0.1, momentum=0.9))
    wrapper['optimizer']['_delete_'] = True
    train(tmp_path, optim_wrapper=wrapper, train_cfg=dict(max_epochs=2))
    wrapper['optimizer'] = dict(type='SGD', lr=0.2, momentum=0.8, _delete_=True)
    runner = train(tmp_path, resume=True, optim_wrapper=wrapper)
    groups = runner.optim_wrapper.param_groups
    assert [group['momentum'] for group in groups] == [0.8] * len(groups)
    assert sorted(group['initial_lr'] for group in groups) == pytest.approx([0.2, 0.2, 0.4])
    assert 'momentum: 0.9 to 0.8' in ''.join(capsys.readouterr())
