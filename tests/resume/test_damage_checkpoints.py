"""Trainings whose files are damaged, and which are resumed."""

import pytest
import torch
from toy_training import toy_config, train

from hg_plugin.training import runner
from hg_plugin.utils.errors import InputError


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


# test_latest.py has more
DAMAGES = dict(
    truncated=lambda run: cut(run / 'epoch_2.pth'),
    pointer_of_mmengine=lambda run: (run / 'last_checkpoint').write_text(f'/other{run}/epoch_2.pth'),
    best_deleted=lambda run: (run / 'best_Mean_epoch_2.pth').unlink(),
)


@pytest.mark.slow
@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_of_a_file(stopped, capsys, damage):
    DAMAGES[damage](stopped)
    train(stopped, resume=True)
    printed = ''.join(capsys.readouterr())
    resumed = 1 if damage == 'truncated' else 2
    assert f'resumed epoch: {resumed}' in printed
    assert resumed == 2 or 'epoch_1.pth: ' in printed and 'epoch_2.pth' in printed
    files = {path.name for path in stopped.glob('*.pth*')}
    assert files == {'best_Mean_epoch_3.pth', 'epoch_2.pth', 'epoch_3.pth'}
    assert (stopped / 'last_checkpoint').read_text() == 'epoch_3.pth'
    best = torch.load(stopped / 'best_Mean_epoch_3.pth')['message_hub']['runtime_info']
    assert best['best_score'] == 3 and best['validated'] == 2


@pytest.mark.slow
def test_without_a_whole_checkpoint_no_run_starts_over(stopped, tmp_path, capsys):
    for path in stopped.glob('epoch_*.pth'):
        cut(path)
    before = {path: path.read_bytes() for path in stopped.glob('*.pth')}
    with pytest.raises(InputError, match='undamaged'):
        train(stopped, resume=True)
    assert before == {path: path.read_bytes() for path in stopped.glob('*.pth')}
    train(tmp_path / 'new', resume=True)
    assert 'has no checkpoint: the training starts from scratch' in capsys.readouterr().out


def test_a_folder_in_use_is_refused_before_anything_is_written(holder, tmp_path):
    before = [*tmp_path.iterdir()]
    with pytest.raises(InputError, match=f'{tmp_path} is in use by process {holder} on '):
        runner.train(toy_config(tmp_path), resume=True)
    assert [*tmp_path.iterdir()] == before
