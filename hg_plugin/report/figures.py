"""Plotly figures as plain dicts, without colours of text and background, which the page sets.

A figure for the page is a dict of ``title``, ``note``, and Plotly's ``data`` and ``layout``.
"""

import html
import math
import re
import textwrap
from collections.abc import Iterable, Sequence
from itertools import cycle, product

import numpy as np

from hg_plugin.evaluation import THRESHOLDS
from hg_plugin.mpii_format import JOINT_GROUPS

from .persons import PLACES, Persons, confusion, joint_name
from .records import MARKED
from .runs import Run

# readable on white and on black
COLORS = ('#3b82f6', '#f97316', '#10b981', '#a855f7', '#ef4444', '#06b6d4', '#eab308', '#ec4899')
GRAY = '#8a94a6'
MARK_COLORS = dict(zip(MARKED, ('#ef4444', '#f97316', '#eab308', '#a855f7', '#3b82f6')))
# from head to feet, the right joint before the left, of those that are scored
JOINT_ORDER = [9, 8, *(joint for name, pair in JOINT_GROUPS.items() if name != 'Head' for joint in pair)]
# of a curve; more of them are averaged, and cannot be told apart on a screen
MOST_POINTS = 1200
MOST_MARKS = 60


def figure(title: str, traces: list[dict], x: str, y: str, note='', height=340, **layout) -> dict:
    """A figure for the page, with the titles of its axes."""
    layout = dict(
        height=height,
        xaxis=dict(title=dict(text=x, standoff=4), automargin=True),
        yaxis=dict(title=dict(text=y, standoff=6), automargin=True, exponentformat='e'),
        hovermode='x unified',
        legend=dict(orientation='h', x=0, y=-0.2, yanchor='top', traceorder='normal'),
        margin=dict(l=50, r=14, t=16, b=40),
        **layout,
    )
    return dict(title=title, note=note, data=traces, layout=layout)


def line(x: Sequence, y: Sequence, name: str, number: int, **options) -> dict:
    """A curve, of at most MOST_POINTS points, in the color with this number."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    bins = math.ceil(len(x) / MOST_POINTS)
    if bins > 1:
        whole = len(x) // bins * bins
        # the last, shorter bin keeps its end, so that a curve ends where it ends
        x, y = (np.append(v[:whole].reshape(-1, bins).mean(axis=1), v[whole:][-1:]) for v in (x, y))
    options = dict(mode='lines+markers' if len(x) <= 40 else 'lines', marker=dict(size=5)) | options
    color = COLORS[number % len(COLORS)]
    return dict(
        type='scatter', x=numbers(x), y=numbers(y), name=name, line=dict(color=color, width=2), **options
    )


def bars(values: dict[str, dict[str, float]], axes: str = 'xy', colors: Sequence[str] = COLORS) -> list[dict]:
    """Bars by name of the trace and category; ``axes`` 'yx' lays them down."""
    return [
        dict(
            type='bar',
            orientation='v' if axes == 'xy' else 'h',
            name=name,
            marker=dict(color=color),
            **{axes[0]: [*own], axes[1]: numbers(own.values())},
        )
        for (name, own), color in zip(values.items(), cycle(colors))
    ]


def numbers(values: Iterable) -> list[float | None]:
    """For JSON: five digits, and None where a value is not finite."""
    return [float(f'{value:.5g}') if np.isfinite(value) else None for value in values]


def curves(runs: list[Run]) -> list[dict]:
    """What changes over trainings: losses, metrics, peaks of heatmaps, learning rate."""
    train = dict.fromkeys(key for run in runs for key in run.train)
    losses = [key for key in train if key.startswith('loss_')] or ['loss']
    metrics = dict.fromkeys(key for run in runs for key in run.metrics)
    stages = [key for key in metrics if re.fullmatch(r'stage\d+/Mean', key)]
    main = runs[0].main_metric
    wanted = [*stages, 'Mean@0.1', 'AUC'] if main == 'Mean' else [*metrics][:4]
    if len(runs) > 1:
        losses, wanted = losses[-1:], [main]
    names = {'Mean@0.1': 'PCKh@0.1', 'acc_pose': 'accuracy', 'heatmap_peak': 'peak'}
    names |= {key: f'PCKh@0.5, {key[:-5].replace("stage", "stage ")}' for key in stages}
    names |= {key: key.replace('loss_stage', 'stage ') for key in losses}
    note = 'Mean maximum of the predicted heatmaps; a target peaks at 1, empty heatmaps at 0.'
    loss = 'Loss per stage' if len(losses) > 1 else 'Loss of the last stage'
    found = [
        log_axis(history(loss, runs, 'train', losses, 'loss', names)),
        history(f'{"PCKh" if main == "Mean" else "Metrics"}, validation', runs, 'val', wanted, '%', names),
        history('Heatmap peak, training', runs, 'train', ['heatmap_peak', 'acc_pose'], '', names, note),
        history('Learning rate', runs, 'train', ['lr'], 'learning rate'),
    ]
    return [own for own in found if own['data']]


def history(title: str, runs: list[Run], phase: str, keys: list, y: str, names={}, note='') -> dict:
    """Curves over a training: of several keys for one run, or of the first key for several runs."""
    traces = []
    for number, (run, key) in enumerate(product(runs, keys if len(runs) == 1 else keys[:1])):
        columns = getattr(run, phase)
        if key in columns:
            logged = ~np.isnan(columns[key])
            name = names.get(key, key) if len(runs) == 1 else run.name
            traces.append(line(columns['x'][logged], columns[key][logged], name, number))
    drawn = figure(title, traces, ' or '.join(sorted({run.unit for run in runs})), y, note)
    if traces and len(runs) == 1:
        add_marks(drawn, runs[0])
    return drawn


def log_axis(drawn: dict) -> dict:
    """The figure with a button for its axis, which is logarithmic at first if its values differ much."""
    drawn['layout']['meta'] = dict(button=True)  # for the page
    values = [value for trace in drawn['data'] if 'yaxis' not in trace for value in trace['y'] if value]
    if values and min(values) > 0 and max(values) > 5 * min(values):
        drawn['layout']['yaxis'] |= dict(type='log', dtick='D2', tickformat='~g')
    return drawn


def add_marks(drawn: dict, run: Run) -> None:
    """Draw events as vertical lines with their text at the upper edge."""
    drawn['layout']['yaxis2'] = dict(overlaying='y', range=[0, 1], visible=False, fixedrange=True)
    for kind in MARKED:
        events = [event for event in run.events if event.kind == kind][:MOST_MARKS]
        trace = dict(
            type='scatter',
            mode='lines+markers',
            x=[place for event in events for place in [run.position(event.iteration)] * 2 + [None]],
            y=[0, 1, None] * len(events),
            yaxis='y2',
            name=kind,
            text=[text for event in events for text in [_wrap(event.text)] * 2 + [None]],
            hovertemplate='%{text}',
            line=dict(color=MARK_COLORS[kind], width=1, dash='dash'),
            marker=dict(symbol='triangle-down', size=[0, 11, 0] * len(events)),
        )
        if events:
            drawn['data'].append(trace)


def _wrap(text: str) -> str:
    """Short HTML for a hover label."""
    return '<br>'.join(textwrap.wrap(html.escape(text), width=60, max_lines=8))


def over_threshold(shares: dict[str, np.ndarray]) -> dict:
    """PCKh over the threshold, by run or by group of joints."""
    traces = [
        line(THRESHOLDS, own, name, number, mode='lines') for number, (name, own) in enumerate(shares.items())
    ]
    return figure('PCKh over the threshold', traces, 'threshold in head sizes', 'PCKh (%)', height=420)


def joints_pckh(errors: dict[str, np.ndarray]) -> dict:
    """PCKh@0.5 of every joint, a bar a run or stage, from (N, 16) distances in head sizes."""
    shares = {}
    for name, own in errors.items():
        with np.errstate(invalid='ignore'):
            share = 100 * (own <= 0.5).sum(axis=0) / np.isfinite(own).sum(axis=0)
        shares[name] = {joint_name(joint): share[joint] for joint in JOINT_ORDER}
    drawn = figure('PCKh@0.5 of every joint', bars(shares), '', 'PCKh@0.5 (%)', height=380, barmode='group')
    drawn['layout']['legend'] |= dict(y=1.02, yanchor='bottom')  # names of joints are long
    return drawn


def sides(persons: Persons) -> dict:
    """Where predictions of right and left joints fall."""
    shares = confusion(persons)
    places = {place: {joint: own[i] for joint, own in shares.items()} for i, place in enumerate(PLACES)}
    traces = bars(places, 'yx', (COLORS[2], COLORS[4], COLORS[1], GRAY))
    note = 'Joints that the predictions are nearest to, within half a head.'
    drawn = figure('Left and right joints', traces, 'predictions (%)', '', note, 440, barmode='stack')
    drawn['layout'] |= dict(hovermode='y unified')
    drawn['layout']['yaxis'] |= dict(autorange='reversed')
    drawn['layout']['xaxis'] |= dict(range=[0, 100])
    return drawn
