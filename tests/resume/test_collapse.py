import json
import logging
from pathlib import Path
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


RECORDED = json.loads(Path(__file__).with_name('collapse.json').read_text())


@pytest.mark.parametrize('name', RECORDED['collapses'])
def test_it_warns_of_every_collapse(name, caplog):
    found = warnings(caplog, *RECORDED['collapses'][name])
    assert len(found) == 1 and found[0][0] <= (600 if name == 'mean' else 200)
    expected = 'has diverged' if name in ('lr1e6', 'infinite') else 'collapsed to empty heatmaps'
    assert expected in found[0][1]


@pytest.mark.parametrize('name', RECORDED['good'])
def test_it_says_nothing_of_a_training_that_learns(name, caplog):
    assert not warnings(caplog, *RECORDED['good'][name])


def test_it_says_nothing_of_photographs_whose_peaks_fall_first(caplog):
    curves = ([*np.interp(np.arange(0, 26, 0.5), range(26), each)] for each in RECORDED['photographs'])
    assert not warnings(caplog, *curves)


def test_it_repeats_itself_seldom_and_needs_no_accuracy(caplog):
    found = warnings(caplog, [0.01] * 41, interval=10, repeat=400)
    assert [iteration for iteration, _ in found] == [10, 410, 810]
