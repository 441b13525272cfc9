"""Which figures a report has, with their titles and notes."""

import re

from . import figures
from .persons import Persons
from .runs import Run


def chart(title: str, figure: dict, note: str = '') -> dict:
    """A figure with its title and a note, for the page."""
    return dict(title=title, figure=figure, note=note, button='meta' in figure['layout'])


def curve_charts(runs: list[Run]) -> list[dict]:
    """What changes over trainings: losses, metrics, peaks of heatmaps, learning rate."""
    keys = list(dict.fromkeys(key for run in runs for key in run.train))
    losses = [key for key in keys if re.match(r'loss_', key)] or [key for key in keys if key == 'loss']
    metrics = list(dict.fromkeys(key for run in runs for key in run.metrics))
    stages = [key for key in metrics if re.fullmatch(r'stage\d+/Mean', key)]
    main = runs[0].main_metric
    others = [key for key in ('Mean@0.1', 'AUC') if key in metrics] if main == 'Mean' else metrics[1:4]
    shown = [*(stages or ([main] if main else [])), *others]
    if len(runs) > 1:  # legends have room for one or two a run
        losses, shown = losses[-1:], [key for key in (main, 'AUC') if key in metrics]
    names = {'Mean': 'PCKh@0.5', 'Mean@0.1': 'PCKh@0.1'}
    names |= {key: f'PCKh@0.5, {key[:-5].replace("stage", "stage ")}' for key in stages}
    names |= {key: key.replace('loss_stage', 'stage ') for key in losses}
    found = []
    if losses:
        loss = figures.history(runs, 'train', losses, 'loss', names)
        found.append(
            chart('Loss per stage' if len(losses) > 1 else 'Loss of the last stage', figures.log_axis(loss))
        )
    if shown:
        title = 'PCKh per stage, validation' if set(stages) & set(shown) else f'{main}, validation'
        found.append(chart(title, figures.history(runs, 'val', shown, '%', names)))
    if 'heatmap_peak' in keys:
        note = 'Mean maximum of the predicted heatmaps; a target peaks at 1, empty heatmaps at 0.'
        peaks = figures.history(
            runs,
            'train',
            ['heatmap_peak', 'acc_pose'][: 2 if len(runs) == 1 else 1],
            '',
            dict(acc_pose='accuracy', heatmap_peak='peak'),
        )
        title = 'Heatmap peak and accuracy, training' if len(runs) == 1 else 'Heatmap peak, training'
        found.append(chart(title, peaks, note))
    if 'lr' in keys:
        rate = figures.history(runs, 'train', ['lr'], 'learning rate')
        rate['layout']['yaxis'] |= dict(rangemode='tozero')
        found.append(chart('Learning rate', rate))
    return found


def error_charts(persons: dict[str, Persons], single: Persons | None) -> list[dict]:
    """Errors of the last validation by person and joint, by name of the run; more of a single one."""
    size = chart(
        'Accuracy and size',
        figures.sizes(persons),
        'Groups of equally many persons, from small to large.',
    )
    hidden = chart(
        'Accuracy and occlusion',
        figures.occlusion(persons),
        "Annotations in MPII's layout do not mark hidden joints; these groups stand in for it.",
    )
    if not single:
        return [size, hidden]
    joints = chart(
        'Error of every joint',
        figures.joints_error(single.errors()),
        'Boxes: quartiles. Whiskers: from 5 to 95 percent of persons.',
    )
    sides = chart(
        'Left, right and other joints',
        figures.sides(single),
        'Where predictions fall, within half a head: on the joint, on that of the other side, on another '
        'joint of the person, or elsewhere.',
    )
    return [sides, joints, size, hidden]
