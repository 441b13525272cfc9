"""benchmarks/gpu.py: all that a GPU will be asked for, in miniature on a CPU; and what becomes of a step that
fails or hangs."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

STEPS = ('profile', 'tests', 'training_rate', 'training', 'inference', 'epoch')


def raw(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_dry_run_leaves_every_table_and_raw_figure(tmp_path, request):
    """A minute and a half of one core; the time it is given is for machines that do much else."""
    result = subprocess.run(
        [sys.executable, 'benchmarks/gpu.py', '--dry-run', '--minutes', '14', '--out', str(tmp_path)],
        cwd=request.config.rootpath,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=900,
    )
    out = result.stdout
    assert result.returncode == 0, out
    summary = json.loads((tmp_path / 'summary.json').read_text())
    logs = ''.join(f'{path.name}:\n{path.read_text()[-2000:]}\n' for path in sorted(tmp_path.glob('*.log')))
    assert [(step['step'], step['outcome']) for step in summary['steps']] == [
        (step, 'done') for step in STEPS
    ], out + logs
    for number, step in enumerate(STEPS, 1):
        table = (tmp_path / f'{number}_{step}.md').read_text()
        assert re.search(r'^\|.*\| +\d[\d.]*', table, re.MULTILINE), table
        assert raw(tmp_path / f'{number}_{step}.jsonl')

    ways = [row['way'] for row in raw(tmp_path / '1_profile.jsonl') if row['host']['backward'] > 0]
    assert ways == ['casts', 'together', 'graph', 'compiled']
    assert len(list(tmp_path.glob('1_profile.md.*.json.gz'))) == 4
    machine, *tests = raw(tmp_path / '2_tests.jsonl')
    assert machine['machine']['torch'] and [test['outcome'] for test in tests] == ['passed']
    assert [row['network'] for row in raw(tmp_path / '3_training_rate.jsonl') if row.get('rate', 0) > 0] == [
        '2-fast',
        'hourglass52',
    ]
    training = {key: value for row in raw(tmp_path / '4_training.jsonl') for key, value in row.items()}
    assert training['iterations'] >= 2 and training['train_rate'] > 0 and training['pckh']['Mean'] >= 0
    assert (
        0 < training['weights_bytes'] == (tmp_path / 'hg_2stack_lspet_half.pth').stat().st_size < 16 * 2**20
    )
    ways = {row['way']: row for row in raw(tmp_path / '5_inference.jsonl') if 'way' in row}
    assert (
        all(ms > 0 for ms in ways['eager']['ms'])
        and ways['reparameterized, CUDA graphs']['failed'] == 'CUDA graphs need a GPU.'
    )
    (epoch,) = raw(tmp_path / '6_epoch.jsonl')
    assert epoch['seconds']['forward'] > 0 and epoch['seconds']['validation'] > 0
    measured = {goal['text']: goal['measured'] for goal in summary['goals']}
    assert measured['training, 2 stacks, config as it is, batch 1: times hourglass52'] > 0
    assert measured['pipeline, % of the synthetic rate'] > 0
    text = (tmp_path / 'summary.md').read_text()
    assert 'GPU: not measured' in text and '| met |' not in text


FAILS = """
import sys
print('about to fail', flush=True)
open(sys.argv[sys.argv.index('--out') + 1], 'w').write('a row that was measured\\n')
raise RuntimeError('the reason')
"""
# with a process in a session of its own, as torchrun's workers are
HANGS = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)
print('child', child.pid, flush=True)
if os.fork() == 0:
    os.setsid()
    print('orphan', os.getpid(), flush=True)
    time.sleep(600)
time.sleep(600)
"""
WORKS = """
import sys
open(sys.argv[sys.argv.index('--raw') + 1], 'w').write('{"figure": 1}\\n')
open(sys.argv[sys.argv.index('--out') + 1], 'w').write('a table\\n')
"""
STEPS_OF_THE_TEST = """
import sys
sys.path.insert(0, 'benchmarks')
from gpu import Step, run_steps
folder = sys.argv[1]
steps = [Step('fails', 'Fails', 2, [folder + '/fails.py']), Step('hangs', 'Hangs', 3, [folder + '/hangs.py']),
         Step('works', 'Works', 4, [folder + '/works.py'], beside=[[folder + '/hangs.py']])]
run_steps(steps, folder + '/out', 0.3, False)
"""


def alive(pid):
    return (
        os.path.exists(f'/proc/{pid}')
        and 'Z' not in Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='processes are looked up in /proc')
def test_a_step_that_fails_or_hangs_is_noted_and_passed_over_in_time(tmp_path, request):
    for name, text in dict(fails=FAILS, hangs=HANGS, works=WORKS).items():
        (tmp_path / f'{name}.py').write_text(text)
    begin = time.monotonic()
    result = subprocess.run(
        [sys.executable, '-c', STEPS_OF_THE_TEST, str(tmp_path)],
        cwd=request.config.rootpath,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert time.monotonic() - begin < 0.3 * 60
    out = tmp_path / 'out'
    steps = json.loads((out / 'summary.json').read_text())['steps']
    assert steps[0]['outcome'] == 'failed with exit code 1'
    assert steps[1]['outcome'].startswith('stopped by its time limit') and steps[2]['outcome'] == 'done'
    fails = (out / '1_fails.md').read_text()
    assert (
        fails.startswith('a row that was measured')
        and 'RuntimeError: the reason' in fails
        and 'exit code 1' in fails
    )
    hangs = (out / '2_hangs.md').read_text()
    assert 'stopped by its time limit' in hangs and 'orphan' in hangs
    assert (out / '3_works.md').read_text() == 'a table\n' and raw(out / '3_works.jsonl') == [{'figure': 1}]
    started = re.findall(
        r'(?:child|orphan) (\d+)',
        (out / '2_hangs.log').read_text() + (out / '3_works_compiling1.log').read_text(),
    )
    assert len(started) == 4 and not any(map(alive, started))


def test_goals_are_met_not_met_or_not_measured(monkeypatch, request):
    monkeypatch.syspath_prepend(request.config.rootpath / 'benchmarks')
    from gpu_summary import goals

    found = {goal.text: goal for goal in goals({})}
    assert {goal.met for goal in found.values() if goal.least is not None} == {'not measured'}
    rates = [
        dict(network=network, batch=32, rate=rate, memory=memory)
        for network, rate, memory in (
            ('2-fast', 1300.0, 100.0),
            ('hourglass52', 200.0, 200.0),
            ('2-eager', 1000.0, 300.0),
            ('2-cp', 900.0, 50.0),
        )
    ]
    raw_figures = dict(
        training_rate=[
            dict(matrix_rate=600.0),
            *rates,
            dict(network='8-eager', batch=128, failed='out of memory'),
        ],
        tests=[dict(machine={}), dict(outcome='passed'), dict(outcome='skipped')],
        training=[dict(synthetic_rate=100.0, pipeline_rate=91.0)],
        inference=[
            dict(way='eager', ms=[13.0, 20.0]),
            dict(way="MMPose's hourglass52, eager", ms=[26.0, 60.0]),
        ],
    )
    found = {goal.text: goal for goal in goals(raw_figures)}
    prefix = 'training, 2 stacks, config as it is, batch 32: times '
    assert (found[prefix + 'hourglass52'].measured, found[prefix + 'hourglass52'].met) == (6.5, 'met')
    assert (found[prefix + 'our eager float32'].measured, found[prefix + 'our eager float32'].met) == (
        1.3,
        'not met',
    )
    assert found[prefix + 'hourglass52 with --amp'].met == 'not measured'
    assert (
        found['pipeline, % of the synthetic rate'].met == 'met'
        and found['GPU tests that passed, % of those that ran'].met == 'met'
    )
    assert found['memory of training, 2 stacks, batch 32: without with_cp, of with it'].measured == 2
    assert found['inference, one image, times faster than 130 ms: eager'].measured == 10
