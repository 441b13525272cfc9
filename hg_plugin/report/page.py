"""Write one HTML file that shows a run, or compares several."""

import importlib.util
import json
import os
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
from .persons import Persons, read_persons
from .pictures import draw_persons
from .records import merge
from .runs import Run, read_run
from .settings import differences, flatten, shipped_base

# that are listed
MOST_EVENTS = 200
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
    # here, because nothing else needs them; torch requires Jinja
    from jinja2 import Environment
    from plotly.offline import get_plotlyjs

    runs = [read_run(folder) for folder in work_dirs]
    places = [run.folder.resolve() for run in runs]
    common = os.path.commonpath([place.parent for place in places])
    for number, (run, place) in enumerate(zip(runs, places)):
        run.name = os.path.relpath(place, common)
        if place in places[:number]:  # names tell curves apart
            run.name += f' ({number})'
    content = _one(runs[0]) if len(runs) == 1 else _several(runs)
    charts = [own for group in content['charts'].values() for own in group]
    for number, own in enumerate(charts):
        own['id'] = f'figure{number}'
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text()).render(
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


def _one(run: Run) -> dict:
    persons, missing = _persons(run)
    charts = dict(curves=curve_charts([run]), accuracy=[], errors=[], timings=[])
    stages: list[dict] = []
    pictures: dict = {}
    if persons:
        weights = _weights(run)
        number = persons.keypoints.shape[1]
        curves = {f'stage {stage}': persons.curves(weights, stage) for stage in range(number)}
        stages = [
            dict(name=name, values=[_number(pckh_metrics(own)[metric]) for metric in METRIC_NAMES])
            for name, own in curves.items()
        ]
        errors = {f'stage {stage}': persons.errors(stage) for stage in range(number)}
        charts['accuracy'] = [
            chart('PCKh over the threshold', figures.over_threshold(curves), 'Of the last stage by joint.'),
            chart('PCKh@0.5 of every joint', figures.joints_pckh(errors)),
        ]
        charts['errors'] = error_charts({run.name: persons}, persons)
        pictures, notes = draw_persons(run, persons)
        missing += notes
    if 'time' in run.train:
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
    if any('time' in run.train for run in runs):
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
    evaluator = run.setting('val_evaluator')
    evaluators = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    named = [own['weights'] for own in evaluators if isinstance(own, dict) and 'weights' in own]
    return 'equal' if 'equal' in named else 'annotations'


def _filename(run: Run) -> str:
    """The config's name, of which MMEngine leaves a copy in the work directory."""
    own = [path for path in run.folder.glob('*.py') if path.is_file()]
    return max(own, key=lambda path: path.stat().st_mtime).name if own else ''


def _summary(run: Run) -> dict:
    """The headline, warnings and environment of a run."""
    cards = []
    main = run.main_metric
    if main:
        sign = -1 if run.setting('default_hooks', 'checkpoint', 'rule') == 'less' else 1
        best = np.argmax(np.where(np.isfinite(run.val[main]), sign * run.val[main], -np.inf))
        note = f'best {_number(run.val[main][best])} at {run.unit} {run.val["x"][best]:g}'
        cards.append(('PCKh@0.5' if main == 'Mean' else main, _number(run.metrics[main]), note))
    for metric, label in (('Mean@0.1', 'PCKh@0.1'), ('AUC', 'AUC')):
        if main == 'Mean' and metric in run.metrics:
            cards.append((label, _number(run.metrics[metric]), 'last validation'))
    done = run.position(run.iteration)
    cards.append((f'{run.unit}s', f'{done:.4g}', f'of {run.total}' if run.total else ''))
    cards.append(('time', _duration(run.hours), f'{len(run.starts)} starts' if len(run.starts) > 1 else ''))
    if run.images_per_second:
        cards.append(('images/s', _rate(run.images_per_second), f'{run.batch} images a step'))
    cards.append(('device', run.newest('device') or 'not recorded', ''))
    events = merge(run.events)[:MOST_EVENTS]
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
        environment=run.newest('environment') or {},
    )


def _position(run: Run, iteration: int) -> str:
    return f'{run.position(iteration):.4g}'


def _timings(run: Run) -> list[tuple[str, str]]:
    """Means over the training."""
    rows = []
    for key, label in (
        ('data_time', 'data wait'),
        ('forward_time', 'forward'),
        ('backward_time', 'backward and optimizer'),
        ('time', 'whole step'),
    ):
        values = run.train.get(key, np.zeros(0))
        values = values[np.isfinite(values)]
        if len(values):
            rows.append((f'{label}, a step', f'{1000 * np.mean(values):.4g} ms'))
    seconds = run.val.get('time', np.zeros(0)) * (run.newest('val_batches') or np.nan)
    seconds = seconds[np.isfinite(seconds)]
    if len(seconds):
        rows.append(('validation', f'{seconds.mean():.4g} s'))
        share = seconds.sum() / 36 / run.hours if run.hours else np.nan
        rows.append(('all validations, of the whole time', f'{_number(min(share, 100.0), ".1f")} %'))
    return rows


def _rate(value: float) -> str:
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def _duration(hours: float) -> str:
    return f'{hours:.1f} h' if hours >= 1 else f'{60 * hours:.0f} min'


def _number(value: float | None, spec: str = '.2f') -> str:
    return '–' if value is None or not np.isfinite(value) else format(value, spec)
