"""Trainings that are killed while they write, damaged afterwards, and resumed."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import toy_training

TOY = Path(toy_training.__file__)


@pytest.fixture(scope='module')
def start():
    """Runs a function of toy_training in a process of its own, and returns the process."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['toy_training'])  # so that the processes need not import it

    def start(function, *args, **kwargs):
        process = context.Process(target=getattr(toy_training, function), args=args, kwargs=kwargs)
        process.start()
        return process

    with pytest.MonkeyPatch.context() as patch:
        # Python before 3.12 gives the server no sys.path
        patch.setenv('PYTHONPATH', f'{TOY.parent}:{TOY.parents[2]}')
        yield start


def check_folder(work_dir, epochs=(2, 3), best=3):
    """What a complete run leaves, and nothing else."""
    expected = {f'best_Mean_epoch_{best}.pth', *(f'epoch_{epoch}.pth' for epoch in epochs)}
    assert {path.name for path in work_dir.glob('*.pth*')} == expected
    assert (work_dir / 'last_checkpoint').read_text() == f'epoch_{epochs[-1]}.pth'
    record = json.loads((work_dir / 'validation.json').read_text())
    assert record['best']['Mean'] == [best, f'best_Mean_epoch_{best}.pth'] and record['step'] == epochs[-1]


def toy(**options):
    """Runs a toy training as a command."""
    return subprocess.run(
        [sys.executable, str(TOY), json.dumps(options)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=TOY.parents[2],
        env={**os.environ, 'PYTHONPATH': str(TOY.parents[2])},
        timeout=300,
    )


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def flip(path):
    content = bytearray(path.read_bytes())
    content[content.index(b'layer.weight')] ^= 1
    path.write_bytes(content)


DAMAGES = dict(
    truncated=lambda run: cut(run / 'epoch_2.pth'),
    zeroed=lambda run: (run / 'epoch_2.pth').write_bytes(bytes(9000)),
    empty=lambda run: (run / 'epoch_2.pth').write_bytes(b''),
    deleted=lambda run: (run / 'epoch_2.pth').unlink(),
    flipped=lambda run: flip(run / 'epoch_2.pth'),
    pointer_empty=lambda run: (run / 'last_checkpoint').write_bytes(b''),
    pointer_garbage=lambda run: (run / 'last_checkpoint').write_bytes(bytes(range(256))),
    pointer_missing=lambda run: (run / 'last_checkpoint').unlink(),
    pointer_of_mmengine=lambda run: (run / 'last_checkpoint').write_text(f'/other{run}/epoch_2.pth'),
    best_deleted=lambda run: (run / 'best_Mean_epoch_2.pth').unlink(),
    best_truncated=lambda run: cut(run / 'best_Mean_epoch_2.pth'),
    record_deleted=lambda run: (run / 'validation.json').unlink(),
    record_garbage=lambda run: (run / 'validation.json').write_text('{"step": 1, "run_id": []}'),
)


@pytest.mark.slow
@pytest.mark.parametrize('damage', DAMAGES)
def test_damage_of_a_file(start, tmp_path, damage):
    run = tmp_path / 'run'
    start('train', run, train_cfg=dict(max_epochs=2)).join()
    DAMAGES[damage](run)
    result = toy(work_dir=str(run), resume=True)
    assert result.returncode == 0, result.stdout
    assert 'Traceback' not in result.stdout
    check_folder(run)
    resumed = 1 if damage in ('truncated', 'zeroed', 'empty', 'deleted', 'flipped') else 2
    assert f'resumed epoch: {resumed}' in result.stdout
    if resumed == 1:
        assert 'epoch_1.pth: ' in result.stdout and 'epoch_2.pth' in result.stdout


@pytest.mark.slow
def test_without_a_whole_checkpoint_no_run_starts_over(start, tmp_path):
    run = tmp_path / 'run'
    start('train', run, train_cfg=dict(max_epochs=2)).join()
    for path in run.glob('epoch_*.pth'):
        cut(path)
    before = {path: path.read_bytes() for path in run.glob('*.pth')}
    result = toy(work_dir=str(run), resume=True)
    assert result.returncode == 1 and 'error: ' in result.stdout and 'Traceback' not in result.stdout
    assert 'has no undamaged checkpoint to resume from' in result.stdout
    assert before == {path: path.read_bytes() for path in run.glob('*.pth')}
    result = toy(work_dir=str(tmp_path / 'new'), resume=True)
    assert result.returncode == 0 and 'has no checkpoint: the training starts from scratch' in result.stdout


@pytest.mark.slow
def test_a_folder_in_use_is_refused(start, tmp_path):
    process = start('train', tmp_path, train_cfg=dict(max_epochs=10_000))
    while not (tmp_path / 'last_checkpoint').exists():
        assert process.is_alive()
        time.sleep(0.1)
    result = toy(work_dir=str(tmp_path), resume=True)
    assert result.returncode == 1 and 'Traceback' not in result.stdout
    assert f'{tmp_path} is in use by process {process.pid} on ' in result.stdout
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    epoch = int((tmp_path / 'last_checkpoint').read_text()[6:-4])
    assert toy(work_dir=str(tmp_path), resume=True, train_cfg=dict(max_epochs=epoch + 1)).returncode == 0
