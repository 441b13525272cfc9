"""Nodes started by the scripts, right and wrong, on this machine; and Slurm, with an srun of our own."""

import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from mmengine.config import Config

from hg_plugin.prepare.synthetic import make_synthetic

CONFIG = 'configs/hg_2stack_synthetic.py'
# what Slurm sets, for as many processes as are asked for, on one machine
SRUN = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$SRUN_LOG"
while [ $# -gt 0 ]; do
    case $1 in --ntasks=*) ntasks=${1#*=} ;; -*) ;; *) break ;; esac
    shift
done
export SLURM_NTASKS=$ntasks SLURM_NODELIST=localhost SLURM_JOB_ID=$$
for ((rank = 0; rank < ${STARTED:-$ntasks}; rank++)); do
    SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" &
    processes+=($!)
done
code=0
for process in "${processes[@]}"; do wait $process || code=$?; done
exit $code
"""


@pytest.fixture
def start(tmp_path, request):
    """Starts a script, with variables of the environment, in the background."""
    processes = []

    def start(*command, **env):
        process = subprocess.Popen(
            list(map(str, command)),
            cwd=request.config.rootpath,
            env={**os.environ, 'PYTHON': sys.executable, 'NODE_TIMEOUT': '600', **env},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that all that it starts can be ended
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope='module')
def config(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp('nodes')
    make_synthetic(folder / 'data', num_train=8, num_val=2, seed=0, num_workers=1)
    cfg = Config.fromfile(request.config.rootpath / CONFIG)
    loader = dict(batch_size=2, num_workers=0, persistent_workers=False)
    cfg.merge_from_dict(
        dict(
            train_cfg=dict(max_epochs=1, val_interval=1),
            model=dict(backbone=dict(channels=8, depth=1)),
            default_hooks=dict(logger=dict(interval=1)),
            **{f'{name}_dataloader': loader for name in ('train', 'val', 'test')},
        )
    )
    cfg.data_root = str(folder / 'data')
    for name in ('train', 'val', 'test'):
        cfg[f'{name}_dataloader'].dataset.data_root = cfg.data_root
    cfg.dump(folder / 'config.py')
    return folder / 'config.py'


def ended(process, timeout=600):
    out, _ = process.communicate(timeout=timeout)
    assert 'Traceback' not in out, out[-3000:]
    return process.returncode, out


@pytest.mark.slow
def test_two_nodes_train(start, config, tmp_path, free_port):
    env = dict(NNODES='2', PORT=free_port())
    command = ['bash', 'tools/dist_train.sh', config, 1, '--work-dir', tmp_path]
    nodes = [start(*command, **env, NODE_RANK=str(rank)) for rank in (1, 0)]
    (second, _), (first, out) = map(ended, nodes)
    assert first == second == 0 and '[1][2/2]' in out and (tmp_path / 'epoch_1.pth').exists()


@pytest.mark.slow
def test_nodes_that_are_started_wrong(start, free_port):
    """Each of these was 15 minutes of silence, or a traceback."""
    port, other, third, fourth = (free_port() for _ in range(4))
    # by (rank, port, address of the first)
    cases = [
        ((0, port, '127.0.0.1'), f'at 127.0.0.1:{port}, node 1 of 2 is missing;'),
        ((1, other, '127.0.0.1'), rf'node 0 is missing at 127.0.0.1:{other} \(.*refused\);'),
        ((2, third, '127.0.0.1'), 'This is node 2 of 2, which are counted from 0;'),
        ((1, fourth, 'no.such.host'), f'node 0 is missing at no.such.host:{fourth}'),
    ]
    nodes = [
        start(
            *('bash', 'tools/dist_train.sh', CONFIG, 1),
            **dict(NNODES='2', NODE_RANK=str(rank), PORT=node_port, MASTER_ADDR=address, NODE_TIMEOUT='3'),
        )
        for (rank, node_port, address), _ in cases
    ]
    for node, (case, message) in zip(nodes, cases):
        code, out = ended(node)
        assert code == 1 and re.search(f'^error: .*{message}', out), (case, out)
        assert out.count('\n') == 1, out


@pytest.mark.slow
def test_a_port_in_use_is_named_and_one_node_needs_none(start, tmp_path):
    script = tmp_path / 'worker.py'
    script.write_text('import os; print("port", os.environ["MASTER_PORT"])')
    command = [sys.executable, 'tools/dist_run.py', '--nproc_per_node=1']
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        listener.listen()
        port = listener.getsockname()[1]
        code, out = ended(start(*command, f'--master_port={port}', script))
    assert code == 1 and re.match(f'error: 127.0.0.1:{port} .*already in use', out)
    runs = [ended(start(*command, script)) for _ in range(2)]
    ports = {re.search(r'port (\d+)', out)[1] for _, out in runs}
    assert [code for code, _ in runs] == [0, 0] and len(ports) == 2 and str(port) not in ports


@pytest.fixture
def srun(start, tmp_path):
    """Runs a script under an srun that starts ``started`` processes of ``tasks``."""
    (tmp_path / 'bin').mkdir()
    (tmp_path / 'bin/srun').write_text(SRUN)
    (tmp_path / 'bin/srun').chmod(0o755)
    path = f'{tmp_path}/bin:{os.environ["PATH"]}'

    def srun(*command, tasks=2, **env):
        log = tmp_path / 'srun.txt'
        env = dict(PATH=path, SRUN_LOG=str(log), GPUS=str(tasks), **env)
        code, out = ended(start('bash', *command, **env))
        return code, out, log.read_text().splitlines()

    return srun


@pytest.mark.slow
def test_slurm_trains_and_tests(srun, config, tmp_path):
    work_dir = tmp_path / 'a folder'
    code, out, arguments = srun('tools/slurm_train.sh', 'part', 'job', config, work_dir)
    assert code == 0 and '[1][2/2]' in out and (work_dir / 'epoch_1.pth').exists(), out[-3000:]
    assert arguments[:7] == [
        *('--partition=part', '--job-name=job', '--ntasks=2', '--ntasks-per-node=2', '--gres=gpu:2'),
        *('--cpus-per-task=5', '--kill-on-bad-exit=1'),
    ]
    options = dict(GPUS_PER_NODE='1', CPUS_PER_TASK='3', SRUN_ARGS='--time=1 --quiet')
    checkpoint = work_dir / 'epoch_1.pth'
    code, out, arguments = srun('tools/slurm_test.sh', 'part', 'job', config, checkpoint, **options)
    assert code == 0 and 'PCKh@0.5' in out, out[-3000:]
    assert arguments[3:9] == [
        *('--ntasks-per-node=1', '--gres=gpu:1', '--cpus-per-task=3'),
        *('--kill-on-bad-exit=1', '--time=1', '--quiet'),
    ]


@pytest.mark.slow
def test_a_process_that_slurm_did_not_start_is_named(srun, config, tmp_path):
    env = dict(STARTED='2', NODE_TIMEOUT='20')
    code, out, _ = srun('tools/slurm_train.sh', 'part', 'job', config, tmp_path / 'work', tasks=3, **env)
    assert code == 1 and re.search(r'error: After 20 s at localhost:\d+, process 2 of 3 is missing', out), out


@pytest.mark.parametrize('script', ['slurm_train.sh', 'slurm_test.sh', 'dist_train.sh', 'dist_test.sh'])
def test_too_few_arguments(request, script):
    result = subprocess.run(
        ['bash', f'tools/{script}', 'part'], cwd=request.config.rootpath, capture_output=True, text=True
    )
    assert result.returncode == 2 and result.stderr.startswith(f'usage: tools/{script} ')
