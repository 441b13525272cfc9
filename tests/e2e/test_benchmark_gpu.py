"""benchmarks/gpu.py: all that a GPU will be asked for, in miniature on a CPU; and what becomes of a step that
fails or hangs."""

import json
import re
import sys
from pathlib import Path

import pytest

STEPS = ('profile', 'tests', 'training_rate', 'training', 'inference', 'epoch')


def raw(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_dry_run_leaves_every_table_and_raw_figure(tmp_path, launch):
    """A minute and a half of one core; the time it is given is for machines that do much else."""
    options = '--dry-run', '--minutes', '14', '--out', tmp_path
    out = launch(sys.executable, 'benchmarks/gpu.py', *options, timeout=900).stdout
    summary = json.loads((tmp_path / 'summary.json').read_text())
    logs = ''.join(f'{path.name}:\n{path.read_text()[-2000:]}\n' for path in sorted(tmp_path.glob('*.log')))
    outcomes = {step['step']: step['outcome'] for step in summary['steps']}
    assert outcomes == dict.fromkeys(STEPS, 'done') and [*outcomes] == [*STEPS], out + logs
    for number, step in enumerate(STEPS, 1):
        table = (tmp_path / f'{number}_{step}.md').read_text()
        assert re.search(r'^\|.*\| +\d[\d.]*', table, re.MULTILINE), table
    profile, tests, rates, training, inference, epoch = (
        raw(tmp_path / f'{number}_{step}.jsonl') for number, step in enumerate(STEPS, 1)
    )
    ways = [row['way'] for row in profile if row['host']['backward'] > 0]
    assert ways == ['casts', 'together', 'graph', 'compiled']
    assert len(list(tmp_path.glob('1_profile.md.*.json.gz'))) == 4
    machine, *tests = tests
    assert machine['machine']['torch'] and [test['outcome'] for test in tests] == ['passed']
    assert [row['network'] for row in rates if row.get('rate', 0) > 0] == ['2-fast', 'hourglass52']
    training = {key: value for row in training for key, value in row.items()}
    assert training['iterations'] >= 2 and training['train_rate'] > 0 and training['pckh']['Mean'] >= 0
    size = (tmp_path / 'hg_2stack_lspet_half.pth').stat().st_size
    assert 0 < training['weights_bytes'] == size < 16 * 2**20
    ways = {row['way']: row for row in inference if 'way' in row}
    assert all(ms > 0 for ms in ways['eager']['ms'])
    assert ways['reparameterized, CUDA graphs']['failed'] == 'CUDA graphs need a GPU.'
    (epoch,) = epoch
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
    stat = Path(f'/proc/{pid}/stat')
    return stat.exists() and 'Z' not in stat.read_text().rpartition(')')[2].split()[0]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='processes are looked up in /proc')
def test_a_step_that_fails_or_hangs_is_noted_and_passed_over_in_time(tmp_path, launch):
    for name, text in dict(fails=FAILS, hangs=HANGS, works=WORKS).items():
        (tmp_path / f'{name}.py').write_text(text)
    launch(sys.executable, '-c', STEPS_OF_THE_TEST, tmp_path, timeout=60)
    out = tmp_path / 'out'
    failed, stopped, done = (
        step['outcome'] for step in json.loads((out / 'summary.json').read_text())['steps']
    )
    assert failed == 'failed with exit code 1' and stopped.startswith('stopped by its time limit')
    assert done == 'done'
    fails, hangs, works = ((out / f'{name}.md').read_text() for name in ('1_fails', '2_hangs', '3_works'))
    assert fails.startswith('a row that was measured') and 'RuntimeError: the reason' in fails
    assert 'stopped by its time limit' in hangs and 'orphan' in hangs
    assert works == 'a table\n' and raw(out / '3_works.jsonl') == [{'figure': 1}]
    logs = (out / '2_hangs.log').read_text() + (out / '3_works_compiling1.log').read_text()
    started = re.findall(r'(?:child|orphan) (\d+)', logs)
    assert len(started) == 4 and not any(map(alive, started))


def test_goals_are_met_not_met_or_not_measured(monkeypatch, request):
    monkeypatch.syspath_prepend(request.config.rootpath / 'benchmarks')
    from gpu_summary import goals

    found = {goal.text: goal for goal in goals({})}
    assert {goal.met for goal in found.values() if goal.least is not None} == {'not measured'}
    networks = ('2-fast', 1300.0, 100.0), ('hourglass52', 200.0, 200.0), ('2-eager', 1000.0, 300.0)
    rates = [dict(matrix_rate=600.0), dict(network='8-eager', batch=128, failed='out of memory')]
    for network, rate, memory in (*networks, ('2-cp', 900.0, 50.0)):
        rates.append(dict(network=network, batch=32, rate=rate, memory=memory))
    inference = dict(way='eager', ms=[13.0, 20.0]), dict(way="MMPose's hourglass52, eager", ms=[26.0, 60.0])
    figures = dict(
        training_rate=rates,
        tests=[dict(machine={}), dict(outcome='passed'), dict(outcome='skipped')],
        training=[dict(synthetic_rate=100.0, pipeline_rate=91.0)],
        inference=inference,
    )
    found = {goal.text: (goal.measured, goal.met) for goal in goals(figures)}
    prefix = 'training, 2 stacks, config as it is, batch 32: times '
    assert found[prefix + 'hourglass52'] == (6.5, 'met')
    assert found[prefix + 'our eager float32'] == (1.3, 'not met')
    assert found[prefix + 'hourglass52 with --amp'][1] == 'not measured'
    assert found['pipeline, % of the synthetic rate'][1] == 'met'
    assert found['GPU tests that passed, % of those that ran'][1] == 'met'
    assert found['memory of training, 2 stacks, batch 32: without with_cp, of with it'][0] == 2
    assert found['inference, one image, times faster than 130 ms: eager'][0] == 10
