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
from hg_plugin.utils.errors import InputError, need_packages
from hg_plugin.utils.files import atomic_write

from . import figures
from .persons import Persons, read_persons
from .pictures import draw_persons
from .runs import Run, merge, read_run
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
    need_packages('The report', 'plotly')
    # here, because nothing else needs them; torch requires Jinja
    from jinja2 import Environment
    from plotly.offline import get_plotlyjs
    from plotly.utils import PlotlyJSONEncoder

    runs = [read_run(folder) for folder in work_dirs]
    places = [run.folder.resolve() for run in runs]
    common = os.path.commonpath([place.parent for place in places])
    for run, place in zip(runs, places):
        run.name = os.path.relpath(place, common)
    persons, missing = {}, []
    for run in runs:
        try:
            persons[run.name] = _persons(run)
        except InputError as error:
            missing.append(f'{run.name}: {error}')
    content = _one(runs[0], persons.get(runs[0].name)) if len(runs) == 1 else _several(runs, persons)
    steps = figures.log_axis(
        figures.history('Training step', runs, 'train', ['time', 'data_time'], 'seconds')
    )
    charts = dict(
        curves=figures.curves(runs),
        accuracy=content.pop('accuracy', []),
        timings=[steps] if steps['data'] else [],
    )
    drawn = {f'figure{number}': own for number, own in enumerate(sum(charts.values(), []))}
    for name, own in drawn.items():
        own['id'] = name
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(TEMPLATE.read_text('utf-8')).render(
        **content,
        charts=charts,
        missing=missing,
        runs=[_summary(run) for run in runs],
        title=runs[0].name if len(runs) == 1 else f'{len(runs)} runs compared',
        version=__version__,
        made=datetime.now().strftime('%Y-%m-%d %H:%M'),
        # < would end the script
        figures=json.dumps(drawn, cls=PlotlyJSONEncoder).replace('<', '\\u003c'),
        plotly=get_plotlyjs(),
    )
    out = Path(out or (runs[0].folder / 'report.html' if len(runs) == 1 else 'report.html'))
    with atomic_write(out) as file:
        file.write(page.encode())
    return str(out)


def _one(run: Run, persons: Persons | None) -> dict:
    """What the page shows of one run only."""
    settings = flatten(run.config)
    # MMEngine leaves a copy of the config in the work directory
    copies = sorted(run.folder.glob('*.py'), key=os.path.getmtime)
    base_name, base = shipped_base(settings, copies[-1].name if copies else '')
    content: dict = dict(
        base=base_name,
        settings=[(place, value, base.get(place)) for place, value in settings.items()],
        unset=[(place, value) for place, value in base.items() if place not in settings],
    )
    if persons:
        stages = range(persons.keypoints.shape[1])
        curves = [persons.curves(stage) for stage in stages]
        joints = {f'stage {stage}': persons.joints(stage) for stage in stages}
        note = 'Joints that the predictions are nearest to, within half a head.'
        options = dict(colors=figures.PLACE_COLORS, note=note, barmode='stack')
        pictures, problems = draw_persons(run, persons)
        content |= dict(
            accuracy=[
                figures.over_threshold({name: curves[-1][name] for name in ('Mean', *JOINT_GROUPS)}),
                figures.bars('PCKh@0.5 of every joint', joints, 'PCKh@0.5 (%)'),
                figures.bars('Left and right joints', persons.sides(), 'predictions (%)', **options),
            ],
            columns=METRIC_NAMES,
            stages=[[*map(_number, pckh_metrics(own).values())] for own in curves],
            pictures=pictures,
            problems=problems,
        )
    return content


def _several(runs: list[Run], persons: dict[str, Persons]) -> dict:
    """What the page shows of several runs only."""
    results = []
    for metric in dict.fromkeys(metric for run in runs for metric in run.metrics):
        values = [run.metrics.get(metric, np.nan) for run in runs]
        changes = [_number(value - values[0], '+.2f') for value in values[1:]]
        results.append((metric, [*zip(map(_number, values), ['', *changes])]))
    content: dict = dict(results=results, differences=differences([flatten(run.config) for run in runs]))
    if persons:
        joints = {name: own.joints() for name, own in persons.items()}
        content['accuracy'] = [
            figures.over_threshold({name: own.curves()['Mean'] for name, own in persons.items()}),
            figures.bars('PCKh@0.5 of every joint', joints, 'PCKh@0.5 (%)'),
        ]
    return content


def _persons(run: Run) -> Persons:
    """Predictions of the last validation.

    Raises:
        InputError: There are none, they are damaged, or of another training.
    """
    if not (run.folder / PREDICTIONS).exists():
        raise InputError(
            f'There are no predictions ({PREDICTIONS}), so persons and accuracy are left out. ReportHook '
            'writes them after a validation by MPIIPCKh.'
        )
    persons = read_persons(run.folder / PREDICTIONS)
    if persons.run not in run.starts:
        raise InputError(f'{PREDICTIONS} is of an earlier training in this folder, so persons are left out.')
    return persons


def _summary(run: Run) -> dict:
    """The headline, warnings and environment of a run."""
    cards = {}
    main = run.main_metric
    if main:
        sign = -1 if run.setting('default_hooks.checkpoint.rule') == 'less' else 1
        values = [(sign * row[main], row) for row in run.val if np.isfinite(row.get(main, np.nan))]
        best = max(values, key=lambda value: value[0])[1] if values else run.val[-1]
        note = f'best {_number(best[main])} at {run.unit} {best["x"]:g}'
        cards[figures.display_name(main)] = _number(run.metrics[main]), note
    for metric in ('Mean@0.1', 'AUC'):
        if main == 'Mean' and metric in run.metrics:
            cards[figures.display_name(metric)] = _number(run.metrics[metric]), 'last validation'
    cards[f'{run.unit}s'] = f'{run.position(run.iteration):.4g}', f'of {run.total}' if run.total else ''
    hours = run.seconds / 3600
    time = f'{hours:.1f} h' if hours >= 1 else f'{60 * hours:.2g} min'
    cards['time'] = time, f'{len(run.starts)} starts' if len(run.starts) > 1 else ''
    if run.images_per_second:
        cards['images/s'] = f'{run.images_per_second:,.3g}', f'{run.batch} images a step'
    cards['device'] = run.record.get('device', 'not recorded'), ''
    return dict(
        name=run.name,
        folder=str(run.folder.resolve()),
        status=run.status,
        cards=cards,
        others=run.others,
        unit=run.unit,
        starts=run.starts,
        position=lambda iteration: f'{run.position(iteration):.4g}',
        events=merge(run.events)[:MOST_EVENTS],
        environment=run.record.get('environment', {}),
    )


def _number(value: float, spec: str = '.2f') -> str:
    return format(value, spec) if np.isfinite(value) else '–'
