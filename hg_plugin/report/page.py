"""Write one HTML file that shows a run, or compares several."""

import importlib.util
import json
import os
import re
from collections.abc import Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path

import numpy as np

from hg_plugin import __version__
from hg_plugin.engine.hooks.report_hook import PREDICTIONS
from hg_plugin.evaluation import METRIC_NAMES, pckh_metrics
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write

from . import figures
from .charts import chart, curve_charts, error_charts
from .log import merge
from .persons import Persons, read_persons
from .pictures import draw_persons
from .runs import Run, read_run
from .settings import differences, flatten, shipped_base

TEMPLATE = Path(__file__).with_name('page.html')


def write_report(work_dirs: Sequence[str | PathLike], out: str | PathLike | None = None) -> str:
    """Write an HTML file about trainings, which may be going on or have been killed.

    The file needs no network. For one work directory it shows curves, accuracy, the worst and best persons of
    the last validation, timings, warnings, config and environment. For several it draws curves over each
    other, and lists how results and configs differ.

    Args:
        work_dirs: Folders of trainings, at least one.
        out: The file. Defaults to ``report.html`` in the work directory, for several in the current folder.

    Returns:
        The path of the file.

    Raises:
        InputError: A folder holds no training, Plotly is not installed, or the file cannot be written.
    """
    if importlib.util.find_spec('plotly') is None:
        raise InputError('The report needs Plotly, which is not installed; run: pip install plotly')
    from plotly.offline import get_plotlyjs  # here, because nothing else needs it

    runs = [read_run(folder) for folder in work_dirs]
    names = _unique([str(run.folder) for run in runs])
    for run, name in zip(runs, names):
        run.name = name
    content = _one(runs[0]) if len(runs) == 1 else _several(runs)
    charts = [own for group in content['charts'].values() for own in group]
    for number, own in enumerate(charts):
        own['id'] = f'figure{number}'
    page = _render(
        **content,
        title=runs[0].name if len(runs) == 1 else f'{len(runs)} runs compared',
        version=__version__,
        made=datetime.now().strftime('%Y-%m-%d %H:%M'),
        # < would end the script
        figures=json.dumps({own['id']: own['figure'] for own in charts}).replace('<', '\\u003c'),
        plotly=get_plotlyjs(),
    )
    out = Path(out or (runs[0].folder / 'report.html' if len(runs) == 1 else 'report.html'))
    with atomic_write(out) as file:
        file.write(page.encode())
    return str(out)


def _render(**content) -> str:
    from jinja2 import Environment  # which torch requires

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text()).render(**content)


def _unique(paths: list[str]) -> list[str]:
    """Short names of folders: as many of their last parts as tell them apart."""
    parts = [Path(path).resolve().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = [os.sep.join(own[-length:]) for own in parts]
        if len(set(names)) == len(names):
            return names
    return [f'{name} ({number + 1})' for number, name in enumerate(names)]


def _one(run: Run) -> dict:
    persons, missing = _persons(run)
    charts = dict(curves=curve_charts([run]), accuracy=[], errors=[], timings=[])
    stages: list[dict] = []
    pictures: dict = {}
    if persons:
        weights = _weights(run)
        number = persons.keypoints.shape[1]
        curves = {f'stage {stage + 1}': persons.curves(weights, stage) for stage in range(number)}
        stages = [
            dict(name=name, values=[_number(pckh_metrics(own)[metric]) for metric in METRIC_NAMES])
            for name, own in curves.items()
        ]
        errors = {f'stage {stage + 1}': persons.errors(stage) for stage in range(number)}
        charts['accuracy'] = [
            chart('PCKh over the threshold', figures.over_threshold(curves), 'Of the last stage by joint.'),
            chart('PCKh@0.5 of every joint', figures.joints_pckh(errors)),
        ]
        charts['errors'] = error_charts({run.name: persons}, persons)
        pictures, notes = draw_persons(run, persons)
        missing += notes
    if any('time' in row for row in run.train):
        charts['timings'] = [chart('Where a training step spends its time', figures.timings(run))]
    settings = flatten(run.config)
    base_name, base = shipped_base(settings, _filename(run))
    return dict(
        runs=[_summary(run)],
        charts=charts,
        columns=METRIC_NAMES,
        stages=stages,
        pictures=pictures,
        missing=missing,
        timings=_timings(run),
        base=base_name,
        settings=[(place, value, base.get(place)) for place, value in settings.items()],
        unset=[(place, value) for place, value in base.items() if place not in settings],
    )


def _several(runs: list[Run]) -> dict:
    persons, missing = {}, []
    for run in runs:
        own, notes = _persons(run)
        missing += [f'{run.name}: {note}' for note in notes]
        if own:
            persons[run.name] = own
    charts = dict(curves=curve_charts(runs), accuracy=[], errors=[], timings=[])
    if persons:
        weights = {run.name: _weights(run) for run in runs}
        curves = {name: own.curves(weights[name]) for name, own in persons.items()}
        errors = {name: own.errors() for name, own in persons.items()}
        charts['accuracy'] = [
            chart('Mean PCKh over the threshold', figures.over_threshold(curves)),
            chart('PCKh@0.5 of every joint', figures.joints_pckh(errors)),
        ]
        charts['errors'] = error_charts(persons, None)
    if any('time' in row for run in runs for row in run.train):
        steps = figures.history(runs, 'train', ['time'], 'seconds a step')
        charts['timings'] = [chart('Seconds of a training step', figures.log_axis(steps))]
    metrics = list(dict.fromkeys(metric for run in runs for metric in run.metrics))
    results = []
    for metric in metrics:
        values = [run.metrics.get(metric) for run in runs]
        changes = [
            _number(value - values[0], '+.2f') if None not in (value, values[0]) else '' for value in values
        ]
        results.append((metric, [*zip(map(_number, values), ['', *changes[1:]])]))
    return dict(
        runs=[_summary(run) for run in runs],
        charts=charts,
        missing=missing,
        results=results,
        differences=differences([flatten(run.config) for run in runs]),
    )


def _persons(run: Run) -> tuple[Persons | None, list[str]]:
    """Predictions of the last validation, or why there are none."""
    if not (run.folder / PREDICTIONS).exists():
        why = 'ReportHook writes them after a validation of a dataset with head sizes.'
        return None, [f'There are no predictions ({PREDICTIONS}), so persons and errors are left out. {why}']
    try:
        persons = read_persons(run.folder / PREDICTIONS)
    except InputError as error:
        return None, [f'Persons and errors are left out: {error}']
    if persons.run not in [start.folder.name for start in run.starts]:
        return None, [f'{PREDICTIONS} is of an earlier training in this folder, so persons are left out.']
    return persons, []


def _weights(run: Run) -> str:
    evaluator = run.config.get('val_evaluator')
    evaluators = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator or {}]
    return next((own['weights'] for own in evaluators if own.get('weights')), 'annotations')


def _filename(run: Run) -> str:
    """The config's name, of which MMEngine leaves a copy in the work directory."""
    own = [path for path in run.folder.glob('*.py') if path.is_file()]
    return max(own, key=lambda path: path.stat().st_mtime).name if own else ''


def _summary(run: Run) -> dict:
    """The headline, warnings and environment of a run."""
    cards = []
    main = run.main_metric
    if main:
        rule = ((run.config.get('default_hooks') or {}).get('checkpoint') or {}).get('rule')
        best = (min if rule == 'less' else max)(
            (row for row in run.val if main in row), key=lambda row: row[main]
        )
        note = f'best {_number(best[main])} at {run.unit} {best["x"]:g}'
        cards.append(('PCKh@0.5' if main == 'Mean' else main, _number(run.metrics[main]), note))
    for metric, label in (('Mean@0.1', 'PCKh@0.1'), ('AUC', 'AUC')):
        if main == 'Mean' and metric in run.metrics:
            cards.append((label, _number(run.metrics[metric]), 'last validation'))
    done = run.position(run.iteration)
    cards.append((f'{run.unit}s', f'{done:.4g}', f'of {run.total}' if run.total else ''))
    cards.append(('time', _duration(run.hours), f'{len(run.starts)} starts' if len(run.starts) > 1 else ''))
    if run.images_per_second:
        cards.append(('images/s', _rate(run.images_per_second), f'{run.batch} images a step'))
    cards.append(('device', run.record.get('device') or _device(run), ''))
    environment = run.record.get('environment', {})
    git = {name: state for name, state in run.record.get('git', {}).items() if state}
    if git.get('folder') == git.get('hg_plugin'):
        git.pop('folder', None)
    events = merge(run.events)
    return dict(
        name=run.name,
        folder=str(run.folder.resolve()),
        status=run.status,
        good=run.status in ('complete', 'going on'),
        cards=cards,
        others=run.others,
        unit=run.unit,
        started=[start.folder.name for start in run.starts],
        events=[
            dict(vars(event), at=_position(run, event.iteration), until=_position(run, event.last))
            for event in events
        ],
        environment=environment,
        where=run.record.get('folder'),
        git=git,
        log_environment='' if environment else run.starts[-1].log.environment,
    )


def _position(run: Run, iteration: int) -> str:
    return f'{run.position(iteration):.4g}'


def _device(run: Run) -> str:
    found = re.search(r'GPU 0[^:]*: (.+)', run.starts[-1].log.environment)
    return found[1] if found else 'not recorded'


def _timings(run: Run) -> list[tuple[str, str]]:
    """Means over the training."""
    rows = []
    for key, label in (
        ('data_time', 'data wait'),
        ('forward_time', 'forward'),
        ('backward_time', 'backward and optimizer'),
        ('time', 'whole step'),
    ):
        values = [row[key] for row in run.train if np.isfinite(row.get(key, np.nan))]
        if values:
            rows.append((f'{label}, a step', f'{1000 * np.mean(values):.4g} ms'))
    batches = next((start.log.val_batches for start in reversed(run.starts) if start.log.val_batches), None)
    values = [row['time'] * batches for row in run.val if batches and 'time' in row]
    if values:
        rows.append(('validation', f'{np.mean(values):.4g} s'))
        share = sum(values) / 36 / run.hours if run.hours else np.nan
        rows.append(('all validations, of the whole time', f'{_number(min(share, 100.0), ".1f")} %'))
    return rows


def _rate(value: float) -> str:
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def _duration(hours: float) -> str:
    return f'{hours:.1f} h' if hours >= 1 else f'{60 * hours:.0f} min'


def _number(value: float | None, spec: str = '.2f') -> str:
    return '–' if value is None or not np.isfinite(value) else format(value, spec)
