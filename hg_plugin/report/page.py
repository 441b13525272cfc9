"""Write one HTML file that shows a run, or compares several."""

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
from hg_plugin.mpii_format import JOINT_GROUPS
from hg_plugin.utils.config import parts_of
from hg_plugin.utils.errors import InputError, need_packages
from hg_plugin.utils.files import atomic_write

from . import figures
from .persons import Persons, read_persons
from .pictures import draw_persons
from .records import merge
from .runs import Run, read_run
from .settings import differences, flatten, shipped_base

# that are listed
MOST_EVENTS = 200
STEP_NAMES = dict(time='whole step', data_time='wait for data')
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
    need_packages('The report', 'plotly')
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
    content = _content(runs)
    charts = [own for group in content['charts'].values() for own in group]
    for number, own in enumerate(charts):
        own['id'] = f'figure{number}'
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text('utf-8')).render(
        **content,
        title=runs[0].name if len(runs) == 1 else f'{len(runs)} runs compared',
        version=__version__,
        made=datetime.now().strftime('%Y-%m-%d %H:%M'),
        # < would end the script
        figures=json.dumps({own['id']: own for own in charts}).replace('<', '\\u003c'),
        plotly=get_plotlyjs(),
    )
    out = Path(out or (runs[0].folder / 'report.html' if len(runs) == 1 else 'report.html'))
    with atomic_write(out) as file:
        file.write(page.encode())
    return str(out)


def _content(runs: list[Run]) -> dict:
    """What the page shows, of one run or of several."""
    persons, missing = {}, []
    for run in runs:
        try:
            persons[run.name] = _persons(run)
        except InputError as error:
            missing.append(f'{run.name}: {error}')
    steps = figures.history('Training step', runs, 'train', ['time', 'data_time'], 'seconds', STEP_NAMES)
    charts = dict(curves=figures.curves(runs), timings=[figures.log_axis(steps)] if steps['data'] else [])
    content = dict(charts=charts, missing=missing, runs=[_summary(run) for run in runs])
    content |= _several(runs, persons) if len(runs) > 1 else _one(runs[0], persons.get(runs[0].name))
    if persons:
        charts['accuracy'] = [
            figures.over_threshold(content['shares']),
            figures.joints_pckh(content['errors']),
        ]
        if len(runs) == 1:
            charts['accuracy'].append(figures.sides(*persons.values()))
    return content


def _one(run: Run, persons: Persons | None) -> dict:
    settings = flatten(run.config)
    base_name, base = shipped_base(settings, _filename(run))
    content: dict = dict(
        base=base_name,
        settings=[(place, value, base.get(place)) for place, value in settings.items()],
        unset=[(place, value) for place, value in base.items() if place not in settings],
    )
    if persons:
        stages = range(persons.keypoints.shape[1])
        curves = [persons.curves(_weights(run), stage) for stage in stages]
        tables = [pckh_metrics(own) for own in curves]
        pictures, problems = draw_persons(run, persons)
        content |= dict(
            shares={name: curves[-1][name] for name in ('Mean', *JOINT_GROUPS)},
            errors={f'stage {stage}': persons.errors(stage) for stage in stages},
            columns=METRIC_NAMES,
            stages=[[_number(table[metric]) for metric in METRIC_NAMES] for table in tables],
            pictures=pictures,
            problems=problems,
        )
    return content


def _several(runs: list[Run], persons: dict[str, Persons]) -> dict:
    results = []
    for metric in dict.fromkeys(metric for run in runs for metric in run.metrics):
        values = [run.metrics.get(metric, np.nan) for run in runs]
        changes = [_number(value - values[0], '+.2f') for value in values[1:]]
        results.append((metric, [*zip(map(_number, values), ['', *changes])]))
    return dict(
        shares={
            run.name: persons[run.name].curves(_weights(run))['Mean'] for run in runs if run.name in persons
        },
        errors={name: own.errors() for name, own in persons.items()},
        results=results,
        differences=differences([flatten(run.config) for run in runs]),
    )


def _persons(run: Run) -> Persons:
    """Predictions of the last validation.

    Raises:
        InputError: There are none, they are damaged, or of another training.
    """
    if not (run.folder / PREDICTIONS).exists():
        raise InputError(
            f'There are no predictions ({PREDICTIONS}), so persons and accuracy are left out. ReportHook '
            'writes them after a validation of a dataset with head sizes.'
        )
    persons = read_persons(run.folder / PREDICTIONS)
    if persons.run not in [start.folder.name for start in run.starts]:
        raise InputError(f'{PREDICTIONS} is of an earlier training in this folder, so persons are left out.')
    return persons


def _weights(run: Run) -> str:
    """How the metric of the validation averages joints."""
    parts = parts_of(run.config, r'val_evaluator(\.\d+)?').values()
    return 'equal' if 'equal' in [part.get('weights') for part in parts] else 'annotations'


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
    time = f'{run.hours:.1f} h' if run.hours >= 1 else f'{60 * run.hours:.0f} min'
    cards.append(('time', time, f'{len(run.starts)} starts' if len(run.starts) > 1 else ''))
    if run.images_per_second:
        cards.append(('images/s', f'{run.images_per_second:,.3g}', f'{run.batch} images a step'))
    cards.append(('device', run.newest('device') or 'not recorded', ''))
    return dict(
        name=run.name,
        folder=str(run.folder.resolve()),
        status=run.status,
        cards=cards,
        others=run.others,
        unit=run.unit,
        started=[start.folder.name for start in run.starts],
        position=lambda iteration: f'{run.position(iteration):.4g}',
        events=merge(run.events)[:MOST_EVENTS],
        environment=run.newest('environment') or {},
    )


def _number(value: float, spec: str = '.2f') -> str:
    return format(value, spec) if np.isfinite(value) else '–'
