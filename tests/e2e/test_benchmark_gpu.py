"""benchmarks/gpu.py: all that a GPU will be asked for, in miniature on a CPU; and what becomes of a step that
fails or hangs."""

import json
import re
import sys

import pytest

STEPS = ('profile', 'tests', 'training_rate', 'training', 'inference', 'epoch')


def raw(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_a_dry_run_leaves_every_table_and_raw_figure(tmp_path, launch):
    """A minute and a half of one core; the time it is given is for machines that do much else."""
    options = '--dry-run', '--minutes', '14', '--out', tmp_path
    result = launch(sys.executable, 'benchmarks/gpu.py', *options, timeout=900)
    out = result.stdout
    assert result.returncode == 0, out
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
