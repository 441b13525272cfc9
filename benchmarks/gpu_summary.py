"""What gpu.py asks of a GPU, and whether it was met: summary.md and summary.json."""

import contextlib
import json
import os.path as osp
import time
from typing import NamedTuple


def read_raw(path: str) -> list[dict]:
    """The lines of a raw file; a last one that was cut off is left out."""
    rows = []
    if osp.exists(path):
        with open(path) as file:
            for line in file:
                with contextlib.suppress(json.JSONDecodeError):
                    rows.append(json.loads(line))
    return rows


class Goal(NamedTuple):
    """A figure that is asked for: what it is, the goal as a number and in words, what was measured; None is
    'not measured'."""

    text: str
    least: float | None
    measured: float | None
    form: str = '{:.2f}'

    @property
    def met(self) -> str:
        if self.measured is None:
            return 'not measured'
        return '' if self.least is None else 'met' if self.measured >= self.least else 'not met'

    def row(self) -> list[str]:
        return [
            self.text,
            '' if self.least is None else self.form.format(self.least),
            '' if self.measured is None else self.form.format(self.measured),
            self.met,
        ]


def goals(raw: dict[str, list[dict]]) -> list[Goal]:
    """The goals, from the raw figures of the steps by name."""
    rates = {
        (row['network'], row['batch']): row['rate'] for row in raw.get('training_rate', []) if 'rate' in row
    }
    tests = [row['outcome'] for row in raw.get('tests', []) if 'outcome' in row]
    training = {key: value for row in raw.get('training', []) for key, value in row.items()}
    inference = {row['way']: row for row in raw.get('inference', []) if 'ms' in row}
    passed, ran = tests.count('passed'), len(tests) - tests.count('skipped')
    found = [
        Goal('GPU tests that passed', None, float(passed) if tests else None, '{:.0f}'),
        Goal(
            'GPU tests that passed, % of those that ran', 100, 100 * passed / ran if ran else None, '{:.0f}'
        ),
    ]

    def ratio(above, below):
        return above / below if above and below else None

    steps = {row['way']: row for row in raw.get('profile', [])}
    launched = steps['together']['launched'] if 'together' in steps else None
    found.append(Goal('training step, config as it is: ms until the host has launched it', None, launched))
    for way in ('together', 'compiled', 'graph'):
        times = [steps[name]['step'] if name in steps else None for name in ('casts', way)]
        found.append(Goal(f'training step, {way}: times as fast as with casts', None, ratio(*times)))
    batches = sorted({batch for _, batch in rates}) or [32, 128]
    for ours, title in (('2-fast', 'config as it is'), ('2-compiled', 'compiled')):
        for batch in batches:
            for other, words, least in (
                ('hourglass52', 'hourglass52', 6),
                ('hourglass52-amp', 'hourglass52 with --amp', 3),
                ('2-eager', 'our eager float32', 2.5),
            ):
                found.append(
                    Goal(
                        f'training, 2 stacks, {title}, batch {batch}: times {words}',
                        least,
                        ratio(rates.get((ours, batch)), rates.get((other, batch))),
                    )
                )
    for network, words in (('2', '2 stacks'), ('8', '8 stacks'), ('v1', '2 stacks of v1')):
        memory = {
            (row['network'], row['batch']): row['memory']
            for row in raw.get('training_rate', [])
            if 'rate' in row
        }
        for batch in batches:
            saved = ratio(memory.get((f'{network}-fast', batch)), memory.get((f'{network}-cp', batch)))
            found.append(
                Goal(f'memory of training, {words}, batch {batch}: without with_cp, of with it', None, saved)
            )
    for words, rate in (('pipeline', 'pipeline_rate'), ('real training', 'train_rate')):
        share = ratio(training.get(rate), training.get('synthetic_rate'))
        found.append(Goal(f'{words}, % of the synthetic rate', 90, share and 100 * share, '{:.1f}'))
    found.append(Goal('real training: PCKh@0.5 Mean', None, training.get('pckh', {}).get('Mean')))
    if inference:
        best = {way: row['ms'][0] for way, row in inference.items() if 'hourglass52' not in way}
        stock = [row['ms'][0] for way, row in inference.items() if 'hourglass52' in way]
        found += [
            Goal(
                f'inference, one image, times faster than 130 ms: {min(best, key=best.get)}',
                1,
                130 / min(best.values()),
                '{:.1f}',
            )
        ]
        if stock:
            found.append(
                Goal(
                    'inference, one image, times the fastest hourglass52',
                    None,
                    min(stock) / min(best.values()),
                )
            )
    else:
        found.append(Goal('inference, one image, times faster than 130 ms', 1, None))
    return found


def write_summary(out: str, ended: list[dict], started: float, dry_run: bool) -> None:
    """summary.md and summary.json, of the steps that have ended."""
    raw = {step['step']: read_raw(osp.join(out, f'{step["number"]}_{step["step"]}.jsonl')) for step in ended}
    reached = goals(raw)
    machine = next((row['machine'] for row in raw.get('tests', []) if 'machine' in row), {})
    lines = ['# Figures of a GPU', '']
    if dry_run:
        lines += [
            '**A dry run on a CPU, in miniature: no figure here means anything. GPU: not measured.**',
            '',
        ]
    lines += [
        f'{machine.get("GPU 0", machine.get("GPU", "unknown"))}; torch {machine.get("torch", "unknown")}; '
        f'{time.monotonic() - started:.0f} s.',
        '',
        '| goal | at least | measured | |',
        '| --- | --- | --- | --- |',
        *(
            '| '
            + ' | '.join(goal.row()[:3] + ['a try' if dry_run and goal.measured is not None else goal.met])
            + ' |'
            for goal in reached
        ),
        '',
        '| step | outcome | s | table |',
        '| --- | --- | --- | --- |',
    ]
    lines += [
        f'| {step["number"]}. {step["title"]} | {step["outcome"]} | '
        f'{step["seconds"]:.0f} | {step["number"]}_{step["step"]}.md |'
        for step in ended
    ]
    with open(osp.join(out, 'summary.md'), 'w') as file:
        file.write('\n'.join(lines) + '\n')
    with open(osp.join(out, 'summary.json'), 'w') as file:
        json.dump(
            dict(
                dry_run=dry_run, steps=ended, goals=[dict(goal._asdict(), met=goal.met) for goal in reached]
            ),
            file,
            indent=1,
        )
