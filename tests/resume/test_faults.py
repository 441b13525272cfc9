"""A training of 50 steps in which a call that writes to the disk fails, or is the last one; then resumed."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import toy_training

from hg_plugin.utils.checkpoint import read_checkpoint

HERE = Path(__file__).parent
RECORD = 256  # bytes that fault.c writes for a call
# of the calls; 1 tries each, in some six minutes of two idle cores
STRIDE = int(os.environ.get('HG_FAULT_STRIDE', 1))


@pytest.fixture(scope='module')
def train(start, tmp_path_factory):
    """Runs fifty_steps.py with fault.c preloaded, and returns the exit code and what it printed."""
    compiler = shutil.which('cc')
    if compiler is None or sys.platform != 'linux':
        pytest.skip('fault.c needs Linux and a C compiler (cc)')
    library = tmp_path_factory.mktemp('fault') / 'fault.so'
    subprocess.run([compiler, '-shared', '-fPIC', '-o', library, HERE / 'fault.c', '-ldl'], check=True)
    # torch._dynamo is what a training imports late
    code = 'import runpy, torch._dynamo; runpy.run_path("tests/forked_python.py")'
    servers = type('Preloaded', (start,), dict(idle=[], server_command=[sys.executable, '-c', code]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('LD_PRELOAD', str(library))
        patch.setenv('OMP_NUM_THREADS', '1')
        yield lambda *arguments, **env: servers(HERE / 'fifty_steps.py', *arguments, **env).wait()
    for server in servers.idle:
        server.kill()
        server.wait()


@pytest.fixture(scope='module')
def whole(train, tmp_path_factory):
    """The folder of a training without a fault, and the number of its calls."""
    folder = tmp_path_factory.mktemp('whole')
    run, log = folder / 'run', folder / 'log'
    code, printed = train(run, FAULT_FOLDER=str(run), FAULT_LOG=str(log))
    assert code == 0, printed
    calls = {record.split()[0] for record in log.read_text().splitlines()}
    assert {'mkdir', 'open', 'write', 'fsync', 'rename', 'unlink'} <= calls
    return run, log.stat().st_size // RECORD


@pytest.mark.slow
@pytest.mark.parametrize(
    'error, calls',
    [(0, 1), (errno.ENOSPC, 1), (errno.ENOSPC, 1_000_000), (errno.EIO, 1)],
    ids=['killed', 'full', 'full_for_good', 'broken'],
)
def test_a_fault_in_every_call(train, whole, tmp_path, error, calls):
    run, count = whole
    with ThreadPoolExecutor(2) as pool:
        numbers = range(1, count + 1, STRIDE)
        list(pool.map(lambda number: fail_and_resume(train, run, tmp_path, error, number, calls), numbers))


def fail_and_resume(train, whole, folder, error, number, calls):
    """Train with a fault in calls from ``number`` on, and resume without one."""
    run = folder / f'run{number}'
    fault = dict(FOLDER=run, LOG=folder / f'log{number}', AT=number, LAST=number + calls - 1, ERROR=error)
    code, printed = train(run, **{f'FAULT_{key}': str(value) for key, value in fault.items()})
    # the last line of what went wrong
    case = f'call {number}: {printed[-2000:]}'
    if error:
        assert code == 0 or code == 1 and printed.splitlines()[-1].startswith('error: '), case
        assert 'Traceback' not in printed, case
    else:
        assert code == -signal.SIGKILL, case
    for path in run.glob('*.pth'):
        read_checkpoint(str(path))
    if (run / 'last_checkpoint').exists():
        assert (run / (run / 'last_checkpoint').read_text()).exists(), case
    code, printed = train(run, '--resume')
    case += f'\nresumed: {printed[-2000:]}'
    assert code == 0 and 'Traceback' not in printed, case
    assert best_score(run) == best_score(whole) and not list(run.glob('**/*.partial')), case
    # after an error, one that was not written is missing, and one that was not deleted is left
    assert {'epoch_5.pth', 'best_Mean_epoch_5.pth'} <= names(run) if error else names(run) == names(whole), (
        case
    )
    toy_training.assert_same(*(torch.load(each / 'epoch_5.pth', weights_only=False) for each in (run, whole)))
    shutil.rmtree(run)


def names(run):
    return {path.name for path in run.glob('*.pth*')}


def best_score(run):
    best = torch.load(run / 'best_Mean_epoch_5.pth', weights_only=False)
    return best['message_hub']['runtime_info']['best_score']
