"""Trainings that are killed while they write, damaged afterwards, and resumed."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import toy_training

TOY = Path(toy_training.__file__)


@pytest.fixture
def toy(run):
    """Runs a toy training in a process of its own."""
    return lambda **options: run(TOY, json.dumps(options))


def check_folder(work_dir, epochs=(2, 3), best=3):
    """What a complete run leaves, and nothing else."""
    expected = {f'best_Mean_epoch_{best}.pth', *(f'epoch_{epoch}.pth' for epoch in epochs)}
    assert {path.name for path in work_dir.glob('*.pth*')} == expected
    assert (work_dir / 'last_checkpoint').read_text() == f'epoch_{epochs[-1]}.pth'
    record = json.loads((work_dir / 'validation.json').read_text())
    assert record['best']['Mean'] == [best, f'best_Mean_epoch_{best}.pth'] and record['step'] == epochs[-1]


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path):
    content = bytearray(path.read_bytes())
    content[content.index(b'layer.weight')] ^= 1
    path.write_bytes(content)


# test_latest.py has more
DAMAGES = dict(
    truncated=lambda run: cut(run / 'epoch_2.pth'),
    deleted=lambda run: (run / 'epoch_2.pth').unlink(),
    flipped=lambda run: flip(run / 'epoch_2.pth'),
    pointer_of_mmengine=lambda run: (run / 'last_checkpoint').write_text(f'/other{run}/epoch_2.pth'),
    best_deleted=lambda run: (run / 'best_Mean_epoch_2.pth').unlink(),
    best_truncated=lambda run: cut(run / 'best_Mean_epoch_2.pth'),
    record_deleted=lambda run: (run / 'validation.json').unlink(),
    record_garbage=lambda run: (run / 'validation.json').write_text('{"step": 1, "run_id": []}'),
)


@pytest.mark.slow
@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_of_a_file(toy, tmp_path, damage):
    toy(work_dir=str(tmp_path), train_cfg=dict(max_epochs=2))
    DAMAGES[damage](tmp_path)
    code, printed = toy(work_dir=str(tmp_path), resume=True)
    assert code == 0 and 'Traceback' not in printed, printed
    check_folder(tmp_path)
    resumed = 1 if damage in ('truncated', 'deleted', 'flipped') else 2
    assert f'resumed epoch: {resumed}' in printed
    if resumed == 1:
        assert 'epoch_1.pth: ' in printed and 'epoch_2.pth' in printed


@pytest.mark.slow
def test_without_a_whole_checkpoint_no_run_starts_over(toy, tmp_path):
    run = tmp_path / 'run'
    toy(work_dir=str(run), train_cfg=dict(max_epochs=2))
    for path in run.glob('epoch_*.pth'):
        cut(path)
    before = {path: path.read_bytes() for path in run.glob('*.pth')}
    code, printed = toy(work_dir=str(run), resume=True)
    assert code == 1 and 'error: ' in printed and 'Traceback' not in printed
    assert 'has no undamaged checkpoint to resume from' in printed
    assert before == {path: path.read_bytes() for path in run.glob('*.pth')}
    code, printed = toy(work_dir=str(tmp_path / 'new'), resume=True)
    assert code == 0 and 'has no checkpoint: the training starts from scratch' in printed


@pytest.mark.slow
def test_a_folder_in_use_is_refused(start, toy, tmp_path):
    process = start(TOY, json.dumps(dict(work_dir=str(tmp_path), train_cfg=dict(max_epochs=10_000))))
    while not (tmp_path / 'last_checkpoint').exists():
        os.kill(process.pid, 0)
        time.sleep(0.1)
    code, printed = toy(work_dir=str(tmp_path), resume=True)
    assert code == 1 and 'Traceback' not in printed
    assert f'{tmp_path} is in use by process {process.pid} on ' in printed
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    epoch = int((tmp_path / 'last_checkpoint').read_text()[6:-4])
    assert toy(work_dir=str(tmp_path), resume=True, train_cfg=dict(max_epochs=epoch + 1))[0] == 0
