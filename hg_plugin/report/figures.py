"""Plotly figures as plain dicts, without colours of text and background, which the page sets.

A figure for the page is a dict of ``title``, ``note``, and Plotly's ``data`` and ``layout``.
"""

import html
import math
import re
import textwrap
from collections.abc import Sequence
from itertools import cycle, product

import numpy as np

from hg_plugin.evaluation import THRESHOLDS

from .runs import Run

# readable on white and on black
COLORS = ('#3b82f6', '#f97316', '#10b981', '#a855f7', '#ef4444', '#06b6d4', '#eab308', '#ec4899')
# of predictions, see PLACES in persons.py
PLACE_COLORS = (COLORS[2], COLORS[4], COLORS[1], '#8a94a6')
# kinds of events that are drawn as marks on curves
MARKS = {
    'divergence': '#ef4444',
    'skipped steps': '#f97316',
    'unreadable images': '#eab308',
    'signal': '#a855f7',
    'resumed': '#3b82f6',
}
# of a curve; more of them are averaged, and cannot be told apart on a screen
MOST_POINTS = 1200
NAMES = {
    'Mean': 'PCKh@0.5',
    'Mean@0.1': 'PCKh@0.1',
    'acc_pose': 'accuracy',
    'heatmap_peak': 'peak',
    'time': 'whole step',
    'data_time': 'wait for data',
}


def display_name(key: str) -> str:
    """Of a metric or a loss."""
    key = re.sub(r'^stage(\d+)/Mean$', r'PCKh@0.5, stage \1', key)
    return NAMES.get(key, key.replace('loss_stage', 'stage '))


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
    return dict(type='scatter', x=x, y=y, name=name, line=dict(color=color, width=2), **options)


def bars(
    title: str, values: dict[str, dict[str, float]], y: str, colors: Sequence[str] = COLORS, **options
) -> dict:
    """Bars by name of the trace and of the joint."""
    traces = [
        dict(type='bar', name=name, marker=dict(color=color), x=[*own], y=[*own.values()])
        for (name, own), color in zip(values.items(), cycle(colors))
    ]
    drawn = figure(title, traces, '', y, height=380, **options)
    drawn['layout']['legend'] |= dict(y=1.02, yanchor='bottom')  # names of joints are long
    return drawn


def curves(runs: list[Run]) -> list[dict]:
    """What changes over trainings: losses, metrics, peaks of heatmaps, learning rate."""
    losses = [key for key in _keys(run.train for run in runs) if key.startswith('loss_')] or ['loss']
    metrics = _keys([run.metrics] for run in runs)
    main = runs[0].main_metric
    stages = [key for key in metrics if re.fullmatch(r'stage\d+/Mean', key)]
    wanted = [*stages, 'Mean@0.1', 'AUC'] if main == 'Mean' else metrics[:4]
    if len(runs) > 1:
        losses, wanted = losses[-1:], [main]
    note = 'Mean maximum of the predicted heatmaps; a target peaks at 1, empty heatmaps at 0.'
    loss = 'Loss per stage' if len(losses) > 1 else 'Loss of the last stage'
    metric = 'PCKh, validation' if main == 'Mean' else 'Metrics, validation'
    found = [
        log_axis(history(loss, runs, 'train', losses, 'loss')),
        history(metric, runs, 'val', wanted, '%'),
        history('Heatmap peak, training', runs, 'train', ['heatmap_peak', 'acc_pose'], '', note),
        history('Learning rate', runs, 'train', ['lr'], 'learning rate'),
    ]
    return [own for own in found if own['data']]


def _keys(tables) -> list[str]:
    """Of all rows."""
    return [*dict.fromkeys(key for rows in tables for row in rows for key in row)]


def history(title: str, runs: list[Run], phase: str, keys: list, y: str, note='') -> dict:
    """Curves over a training: of several keys for one run, or of the first key for several runs."""
    traces = []
    for number, (run, key) in enumerate(product(runs, keys if len(runs) == 1 else keys[:1])):
        rows = [row for row in getattr(run, phase) if key in row]
        if rows:
            name = display_name(key) if len(runs) == 1 else run.name
            traces.append(line([row['x'] for row in rows], [row[key] for row in rows], name, number))
    drawn = figure(title, traces, ' or '.join(sorted({run.unit for run in runs})), y, note)
    if traces and len(runs) == 1:
        add_marks(drawn, runs[0])
    return drawn


def log_axis(drawn: dict) -> dict:
    """The figure with a logarithmic axis if its values differ much."""
    values = [value for trace in drawn['data'] if 'yaxis' not in trace for value in trace['y']]
    if values and max(values) > 5 * min(values) > 0:
        drawn['layout']['yaxis'] |= dict(type='log', dtick='D2', tickformat='~g')
    return drawn


def add_marks(drawn: dict, run: Run) -> None:
    """Draw events as vertical lines with their text at the upper edge."""
    drawn['layout']['yaxis2'] = dict(overlaying='y', range=[0, 1], visible=False, fixedrange=True)
    for kind, color in MARKS.items():
        events = [event for event in run.events if event['kind'] == kind]
        trace = dict(
            type='scatter',
            mode='markers',
            x=[run.position(event['iter']) for event in events],
            y=[1] * len(events),
            yaxis='y2',
            error_y=dict(type='constant', symmetric=False, value=0, valueminus=1, width=0, thickness=1),
            name=kind,
            text=[_wrap(event['text']) for event in events],
            hovertemplate='%{text}',
            marker=dict(symbol='triangle-down', size=11, color=color),
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
    return figure('PCKh over the threshold', traces, 'threshold in head sizes', 'PCKh (%)', height=380)
