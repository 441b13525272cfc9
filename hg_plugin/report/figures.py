"""Plotly figures as plain dicts, without colours of text and background, which the page sets."""

import math
from collections.abc import Iterable, Sequence
from itertools import cycle

import numpy as np

from hg_plugin.evaluation import THRESHOLDS
from hg_plugin.mpii_format import JOINT_GROUPS

from .persons import PLACES, Persons, by_occlusion, by_size, confusion, joint_name
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


def line(x: Sequence, y: Sequence, name: str, color: str, dash: str = 'solid', **options) -> dict:
    """A curve, of at most MOST_POINTS points."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    bins = math.ceil(len(x) / MOST_POINTS)
    if bins > 1:
        whole = len(x) // bins * bins
        # the last, shorter bin keeps its end, so that a curve ends where it ends
        x, y = (np.append(v[:whole].reshape(-1, bins).mean(axis=1), v[whole:][-1:]) for v in (x, y))
    return dict(
        type='scatter',
        mode='lines+markers' if len(x) <= 40 else 'lines',
        x=numbers(x),
        y=numbers(y),
        name=name,
        line=dict(color=color, dash=dash, width=2),
        marker=dict(size=5),
        **options,
    )


def numbers(values: Iterable) -> list[float | None]:
    """For JSON: five digits, and None where a value is not finite."""
    return [float(f'{value:.5g}') if np.isfinite(value) else None for value in values]


def figure(traces: list[dict], x: str, y: str, height: int = 340, **layout) -> dict:
    """A figure with titles of its axes."""
    return dict(
        data=traces,
        layout=dict(
            height=height,
            xaxis=dict(title=dict(text=x, standoff=4), automargin=True),
            yaxis=dict(title=dict(text=y, standoff=6), automargin=True, exponentformat='e'),
            hovermode='x unified',
            legend=dict(orientation='h', x=0, y=-0.2, yanchor='top', traceorder='normal'),
            margin=dict(l=50, r=14, t=16, b=40),
        )
        | layout,
    )


def log_axis(figure: dict) -> dict:
    """The figure with a button for its axis, which is logarithmic at first if its values differ much."""
    figure['layout']['meta'] = dict(button=True)  # for the page
    values = [value for trace in figure['data'] if 'yaxis' not in trace for value in trace['y'] if value]
    if values and min(values) > 0 and max(values) > 5 * min(values):
        figure['layout']['yaxis'] |= dict(type='log', dtick='D2', tickformat='~g')
    return figure


def history(runs: Sequence[Run], phase: str, keys: Sequence[str], y: str, names: dict | None = None) -> dict:
    """Curves over a training: a colour a key for one run; else a colour a run, and one visible key."""
    traces = []
    several = len(runs) > 1
    for number, run in enumerate(runs):
        columns = getattr(run, phase)
        for place, key in enumerate([key for key in keys if key in columns]):
            logged = ~np.isnan(columns[key])
            label = (names or {}).get(key, key)
            color = COLORS[(number if several else place) % len(COLORS)]
            trace = line(
                columns['x'][logged],
                columns[key][logged],
                (f'{run.name}: {label}' if place else run.name) if several else label,
                color,
                'dot' if several and place else 'solid',
            )
            if several and place:
                trace['visible'] = 'legendonly'
            traces.append(trace)
    units = {run.unit for run in runs}
    drawn = figure(traces, ' or '.join(sorted(units)), y)
    if len(runs) == 1:
        add_marks(drawn, runs[0])
    return drawn


def add_marks(drawn: dict, run: Run) -> None:
    """Draw events as vertical lines with their text at the upper edge."""
    for kind in MARKED:
        own = [event for event in run.events if event.kind == kind][:MOST_MARKS]
        trace = dict(
            type='scatter',
            mode='lines+markers',
            x=[place for event in own for place in [run.position(event.iteration)] * 2 + [None]],
            y=[0, 1, None] * len(own),
            yaxis='y2',
            name=kind,
            text=[text for event in own for text in [_wrap(event.text)] * 2 + [None]],
            hovertemplate='%{text}',
            line=dict(color=MARK_COLORS[kind], width=1, dash='dash'),
            marker=dict(symbol='triangle-down', size=[0, 11, 0] * len(own)),
        )
        if own:
            drawn['data'].append(trace)
            drawn['layout']['yaxis2'] = dict(
                overlaying='y', range=[0, 1], visible=False, fixedrange=True, showgrid=False
            )


def _wrap(text: str, width: int = 60) -> str:
    """Short HTML for a hover label."""
    words, lines = text.replace('&', '&amp;').replace('<', '&lt;').split(), ['']
    for word in words[:60]:
        if len(lines[-1]) + len(word) > width:
            lines.append('')
        lines[-1] += f'{word} '
    return '<br>'.join(lines)


def over_threshold(curves: dict[str, dict[str, np.ndarray]]) -> dict:
    """PCKh over the threshold: all groups of one run's last stage and all stages' mean, or runs' means."""
    traces = []
    last = list(curves)[-1]
    single = last.startswith('stage') or last == 'Mean'
    for number, (name, own) in enumerate(curves.items()):
        color = COLORS[number % len(COLORS)]
        label = 'Mean' if single and name == last else f'Mean, {name}' if single else name
        trace = line(THRESHOLDS, own['Mean'], label, color, 'dot' if single and name != last else 'solid')
        trace['mode'] = 'lines'
        if single and name == last:
            trace['line'] |= dict(color=GRAY, width=4)
        traces.append(trace)
    for number, column in enumerate(JOINT_GROUPS if single else ()):
        trace = line(THRESHOLDS, curves[last][column], column, COLORS[number % len(COLORS)])
        traces.append({**trace, 'mode': 'lines'})
    return figure(traces, 'threshold in head sizes', 'PCKh (%)', 420)


def joints_pckh(errors: dict[str, np.ndarray]) -> dict:
    """PCKh@0.5 of every joint, a bar a run or stage."""
    bars = {}
    for name, own in errors.items():
        with np.errstate(invalid='ignore'):
            share = 100 * (own <= 0.5).sum(axis=0) / np.isfinite(own).sum(axis=0)
        bars[name] = {joint_name(joint): share[joint] for joint in JOINT_ORDER}
    legend = dict(orientation='h', x=0, y=1.02, yanchor='bottom')  # names of joints are long
    return figure(_bars(bars), '', 'PCKh@0.5 (%)', 380, barmode='group', hovermode='x', legend=legend)


def _bars(values: dict[str, dict[str, float]], axes: str = 'xy', colors: Sequence[str] = COLORS) -> list:
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


def joints_error(errors: np.ndarray) -> dict:
    """A box for every joint's errors: quartiles, and whiskers from 5 to 95 percent."""
    boxes: dict[str, list] = {key: [] for key in ('x', 'lowerfence', 'q1', 'median', 'q3', 'upperfence')}
    for joint in JOINT_ORDER:
        own = errors[np.isfinite(errors[:, joint]), joint]
        if len(own):
            boxes['x'].append(joint_name(joint))
            for key, value in zip([*boxes][1:], np.percentile(own, (5, 25, 50, 75, 95))):
                boxes[key] += numbers([value])
    trace = dict(type='box', name='error', marker=dict(color=COLORS[0]), **boxes)
    return figure([trace], '', 'distance in head sizes', showlegend=False, hovermode='closest')


def sides(persons: Persons) -> dict:
    """Where predictions of right and left joints fall."""
    shares = confusion(persons)
    places = {
        place: {joint: share[number] for joint, share in shares.items()}
        for number, place in enumerate(PLACES)
    }
    traces = _bars(places, 'yx', (COLORS[2], COLORS[4], COLORS[1], GRAY))
    drawn = figure(traces, 'predictions (%)', '', 440, barmode='stack', hovermode='y unified')
    drawn['layout']['yaxis'] |= dict(autorange='reversed')
    drawn['layout']['xaxis'] |= dict(range=[0, 100])
    return drawn


def sizes(persons: dict[str, Persons]) -> dict:
    """PCKh over the size of persons."""
    traces = []
    for number, (name, own) in enumerate(persons.items()):
        rows = by_size(own)
        middle = [(row['low'] + row['high']) / 2 for row in rows]
        trace = line(middle, [row['pckh'] for row in rows], name, COLORS[number % len(COLORS)])
        trace['text'] = [f'{r["low"]:.0f} to {r["high"]:.0f} pixels, {r["persons"]} persons' for r in rows]
        trace['hovertemplate'] = '%{y:.1f} %: %{text}'
        traces.append(trace)
    drawn = figure(traces, 'longer side of the box in pixels', 'PCKh@0.5 (%)', hovermode='closest')
    drawn['layout']['yaxis'] |= dict(rangemode='tozero')
    drawn['layout']['showlegend'] = len(traces) > 1
    return drawn


def occlusion(persons: dict[str, Persons]) -> dict:
    """PCKh by what may hide a joint."""
    groups = {
        name: {_wrap(group, 24).strip(): found for group, found in by_occlusion(own).items() if found[1]}
        for name, own in persons.items()
    }
    shares = {name: {group: share for group, (share, _) in own.items()} for name, own in groups.items()}
    traces = _bars(shares, 'yx')
    for trace, own in zip(traces, groups.values()):
        trace['text'] = [f'{count:,} joints' for _, count in own.values()]
        trace |= dict(
            textposition='none' if len(persons) > 1 else 'auto', hovertemplate='%{x:.1f} % of %{text}'
        )
    drawn = figure(traces, 'PCKh@0.5 (%)', '', hovermode='closest', barmode='group')
    drawn['layout']['yaxis'] |= dict(autorange='reversed')
    drawn['layout']['showlegend'] = len(traces) > 1
    return drawn


def timings(run: Run) -> dict:
    """Milliseconds of a training step, stacked."""
    whole = run.train['time']
    parts = {'data wait': 'data_time', 'forward': 'forward_time', 'backward and optimizer': 'backward_time'}
    times = {name: np.nan_to_num(run.train[key]) for name, key in parts.items() if key in run.train}
    rest = 'everything else' if len(times) == 3 else 'forward, backward and everything else'
    times[rest] = np.maximum(np.nan_to_num(whole) - sum(times.values()), 0)
    traces = []
    for number, (name, values) in enumerate(times.items()):
        color = COLORS[number] if name != 'everything else' else GRAY
        trace = line(run.train['x'], 1000 * values, name, color, stackgroup='time')
        traces.append({**trace, 'mode': 'lines'})
    drawn = figure(traces, run.unit, 'milliseconds a step')
    add_marks(drawn, run)
    return drawn
