"""Nodes started by the scripts, right and wrong, on this machine; and Slurm, with an srun of our own."""

import os
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

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


@pytest.fixture(scope='module')
def config(tmp_path_factory, small_config):
    cfg = small_config(
        *(8, 2),
        train_cfg=dict(max_epochs=1, val_interval=1),
        model=dict(backbone=dict(channels=8, depth=1)),
        default_hooks=dict(logger=dict(interval=1)),
    )
    file = tmp_path_factory.mktemp('nodes') / 'config.py'
    cfg.dump(file)
    return file


@pytest.mark.slow
def test_two_nodes_train(launch, config, tmp_path, free_port):
    env, command = dict(NNODES='2', PORT=free_port()), ('bash', 'tools/dist_train.sh', config, 1)

    def node(rank):
        return launch(*command, '--work-dir', tmp_path, **env, NODE_RANK=rank)

    with ThreadPoolExecutor() as pool:
        _, first = pool.map(node, '10')
    assert '[1][2/2]' in first.stdout and (tmp_path / 'epoch_1.pth').exists()


@pytest.fixture
def srun(launch, tmp_path):
    """Runs a script under an srun that starts ``STARTED`` processes of ``tasks``."""
    script, log = tmp_path / 'bin/srun', tmp_path / 'srun.txt'
    script.parent.mkdir()
    script.write_text(SRUN)
    script.chmod(0o755)

    def srun(*command, tasks=2, code=0, **env):
        env.update(PATH=f'{script.parent}:{os.environ["PATH"]}', SRUN_LOG=str(log), GPUS=str(tasks))
        out = launch('bash', *command, code=code, **env).stdout
        assert 'Traceback' not in out, out[-3000:]
        return out, log.read_text().split()

    return srun


@pytest.mark.slow
def test_slurm_trains_and_tests(srun, config, tmp_path):
    work_dir = tmp_path / 'a folder'
    out, options = srun('tools/slurm_train.sh', 'part', 'job', config, work_dir)
    assert '[1][2/2]' in out and (work_dir / 'epoch_1.pth').exists(), out[-3000:]
    expected = '--partition=part --job-name=job --ntasks=2 --ntasks-per-node=2 --gres=gpu:2'
    assert options[:7] == [*expected.split(), '--cpus-per-task=5', '--kill-on-bad-exit=1']
    settings = dict(GPUS_PER_NODE='1', CPUS_PER_TASK='3', SRUN_ARGS='--time=1 --quiet')
    files = config, work_dir / 'epoch_1.pth'
    out, options = srun('tools/slurm_test.sh', 'part', 'job', *files, **settings)
    assert 'PCKh@0.5' in out, out[-3000:]
    expected = '--ntasks-per-node=1 --gres=gpu:1 --cpus-per-task=3 --kill-on-bad-exit=1 --time=1 --quiet'
    assert options[3:9] == expected.split()


@pytest.mark.slow
def test_a_process_that_slurm_did_not_start_is_named(srun, config, tmp_path):
    env = dict(STARTED='2', NODE_TIMEOUT='20', tasks=3, code=1)
    out, _ = srun('tools/slurm_train.sh', 'part', 'job', config, tmp_path / 'work', **env)
    assert re.search('error: .*process 2 of 3 is missing', out), out


@pytest.mark.parametrize('script', ['slurm_train.sh', 'slurm_test.sh', 'dist_train.sh', 'dist_test.sh'])
def test_too_few_arguments(launch, script):
    assert launch('bash', f'tools/{script}', 'part', code=2).stdout.startswith(f'usage: tools/{script} ')
