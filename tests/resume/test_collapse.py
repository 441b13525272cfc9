import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.logging import MessageHub

from hg_plugin.engine.resume.collapse import CollapseWarning


def warnings(caplog, peaks, accuracies=None, **options):
    """Iterations at which the hook warns, and its messages; values are given every 25 iterations."""
    name = f'collapse_{len(MessageHub._instance_dict)}'
    hub = MessageHub.get_instance(name)
    warning = CollapseWarning(**options)
    runner = SimpleNamespace(message_hub=hub, logger=logging.getLogger('test'), iter=0)
    found = []
    for runner.iter in range(25 * (len(peaks) - 1)):
        step = runner.iter / 25
        hub.update_scalar('train/heatmap_peak', float(np.interp(step, range(len(peaks)), peaks)))
        if accuracies:
            hub.update_scalar('train/acc_pose', float(np.interp(step, range(len(peaks)), accuracies)))
        caplog.clear()
        warning.check(runner)
        found += [(runner.iter + 1, record.message) for record in caplog.records]
    return found


# recorded in trainings, a value each 25 iterations, unless it says otherwise
COLLAPSES = dict(
    # synthetic persons, Adam with a learning rate of 1 and of 10
    lr1=([0.5, 0.175, 0.032, 0.024, 0.024, 0.024, 0.024, 0.024], [0.01, 0.006, 0, 0, 0, 0, 0, 0]),
    lr10=([0.5, 0.85, 8.6, 2.7, 0.039, 0.018, 0.023, 0.025, 0.024], [0.01, 0.002, 0.001, 0, 0, 0, 0, 0, 0]),
    lr1e6=([0.5, 4e6, -2e5, -1.7e5, -8.9e4, -8e4], [0.01, 0, 0, 0, 0, 0]),
    infinite=([math.nan] * 5, [0] * 5),
    # not recorded: the same heatmaps, where joints often are, for all images
    mean=([0.9, 0.2, 0.1, *[0.04] * 40], [0.01, 0.02, *[0.03] * 41]),
)
GOOD = dict(
    # synthetic persons, learning rates of 0.012 and 0.1
    demo=(
        [0.9, 0.66, 0.19, 0.15, 0.18, 0.23, 0.27, 0.3, 0.34],
        [0.01, 0.01, 0.03, 0.07, 0.12, 0.17, 0.2, 0.3, 0.3],
    ),
    high=([0.9, 0.34, 0.034, 0.028, 0.063, 0.14, 0.16], [0.01, 0.02, 0.019, 0.014, 0.034, 0.05, 0.09]),
)
# photographs, batch 32, peak learning rate 1e-3, each 50 iterations
PHOTOGRAPHS = [
    [*map(float, line.split(','))]
    for line in (
        '0.91, 0.2, 0.105, 0.078, 0.063, 0.059, 0.052, 0.049, 0.045, 0.047, 0.042, 0.044, 0.046, 0.049, '
        '0.045, 0.046, 0.051, 0.05, 0.053, 0.05, 0.055, 0.053, 0.06, 0.059, 0.058, 0.064',
        '0, 0.012, 0.016, 0.024, 0.037, 0.051, 0.031, 0.028, 0.055, 0.037, 0.081, 0.06, 0.058, 0.079, '
        '0.125, 0.128, 0.09, 0.12, 0.126, 0.081, 0.084, 0.088, 0.108, 0.114, 0.101, 0.117',
    )
]


@pytest.mark.parametrize('name', COLLAPSES)
def test_it_warns_of_every_collapse(name, caplog):
    found = warnings(caplog, *COLLAPSES[name])
    assert len(found) == 1 and found[0][0] <= (600 if name == 'mean' else 200)
    expected = 'has diverged' if name in ('lr1e6', 'infinite') else 'collapsed to empty heatmaps'
    assert expected in found[0][1]


@pytest.mark.parametrize('name', GOOD)
def test_it_says_nothing_of_a_training_that_learns(name, caplog):
    assert not warnings(caplog, *GOOD[name])


def test_it_says_nothing_of_photographs_whose_peaks_fall_first(caplog):
    steps = np.arange(0, len(PHOTOGRAPHS[0]), 0.5)
    assert not warnings(caplog, *([*np.interp(steps, range(len(values)), values)] for values in PHOTOGRAPHS))


def test_it_repeats_itself_seldom_and_needs_no_accuracy(caplog):
    found = warnings(caplog, [0.01] * 41, interval=10, repeat=400)
    assert [iteration for iteration, _ in found] == [10, 410, 810]
