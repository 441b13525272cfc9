import json
import shutil
import subprocess
import sys

import pytest
from fake_run import FakeRun

from hg_plugin.report.log import merge
from hg_plugin.report.runs import read_run
from hg_plugin.report.settings import differences, flatten, shipped_base
from hg_plugin.utils.errors import InputError

SKIPPED = '3 of the last 10 steps had a loss or gradient that is not finite (3 since the start, 0 in a row)'
COLLAPSE = 'The predicted heatmaps peak at 0.01 after 60 iterations, and the targets at 1: training has'
BAD = 'images/7.jpg cannot be read. Trained on the next person instead.'


@pytest.fixture(scope='module')
def killed(tmp_path_factory):
    """A training of 4 epochs of 20 iterations: killed after 50, resumed after 40 and complete."""
    run = FakeRun(tmp_path_factory.mktemp('runs') / 'killed', **{'train_cfg.max_epochs': 4})
    run.start(0, 50, lines=[(15, 'WARNING', SKIPPED), (18, 'ERROR', BAD), (35, 'ERROR', BAD)])
    run.start(40, 80, lines=[(60, 'WARNING', COLLAPSE), (70, 'WARNING', 'Something else')])
    return run


@pytest.fixture
def folder(killed, tmp_path):
    return shutil.copytree(killed.folder, tmp_path / 'run')


def test_curves_of_a_resumed_run_have_every_iteration_once(killed):
    run = read_run(killed.folder)
    assert [row['iter'] for row in run.train] == list(range(10, 90, 10))
    assert [row['x'] for row in run.val] == [1, 2, 3, 4]
    assert run.unit == 'epoch' and run.train[-1]['x'] == 4
    assert (run.iteration, run.total, run.status) == (80, 4, 'complete')
    assert run.main_metric == 'Mean' and run.metrics['Mean'] == run.val[-1]['Mean']
    assert run.images_per_second == pytest.approx(8 * 2 / 0.2)  # of two processes
    assert run.hours == pytest.approx((50 * 0.25 + 2 * 6 + 40 * 0.25 + 2 * 6) / 3600, abs=0.002)


def test_warnings_and_the_resume(killed):
    events = read_run(killed.folder).events
    assert [(event.iteration, event.kind) for event in events] == [
        (20, 'skipped steps'),
        (20, 'unreadable images'),
        (40, 'unreadable images'),
        (40, 'resumed'),
        (60, 'collapse or divergence'),
        (70, 'other'),
    ]
    (images,) = [event for event in merge(events) if event.kind == 'unreadable images']
    assert (images.count, images.iteration, images.last) == (2, 20, 40)


def test_a_run_that_was_killed(folder):
    """Without its second start, and cut off in a line."""
    second = sorted(folder.glob('2*'))[1]
    shutil.rmtree(second)
    (file,) = folder.glob('2*/vis_data/scalars.json')
    file.write_text(file.read_text()[:-30])
    run = read_run(folder)
    assert run.iteration == 50 and run.train[-1]['iter'] == 40
    assert run.status == 'incomplete'


def test_a_run_that_goes_on(folder):
    shutil.rmtree(sorted(folder.glob('2*'))[1])
    code = "import fcntl, sys; f = open(sys.argv[1], 'ab+'); fcntl.lockf(f, fcntl.LOCK_EX); print(1); input()"
    owner = subprocess.Popen(
        [sys.executable, '-c', code.replace('print(1)', 'print(1, flush=True)'), str(folder / '.lock')],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    owner.stdout.readline()
    assert read_run(folder).status == 'going on'
    owner.communicate(b'\n')
    assert read_run(folder).status != 'going on'


def test_only_the_newest_training_of_a_folder(folder, killed):
    newest = FakeRun.__new__(FakeRun)
    vars(newest).update(vars(killed), folder=folder)
    newest.start(0, 20)
    run = read_run(folder)
    assert run.others == 1 and [row['iter'] for row in run.train] == [10, 20]
    # a test writes its folder, too
    place = folder / '20990101_000000'
    (place / 'vis_data').mkdir(parents=True)
    (place / 'vis_data/config.py').write_text(killed.text)
    (place / 'vis_data/scalars.json').write_text(json.dumps(dict(Mean=1.0, step=0)))
    assert [row['iter'] for row in read_run(folder).train] == [10, 20]


@pytest.mark.parametrize('name, problem', [('absent', 'does not exist'), ('.', 'holds no log of a training')])
def test_a_folder_without_a_training(tmp_path, name, problem):
    with pytest.raises(InputError, match=problem):
        read_run(tmp_path / name)


def test_settings(killed):
    cfg = read_run(killed.folder).config
    own = flatten(cfg)
    assert own['optim_wrapper.optimizer.lr'] == '0.012' and own['codec.input_size'] == '[128, 128]'
    name, base = shipped_base(own, 'hg_2stack_synthetic.py')
    assert name == 'hg_2stack_synthetic.py'
    assert differences([own, base]) == {'train_cfg.max_epochs': ['4', '5']}


@pytest.mark.slow
def test_nearest_shipped_config(killed):
    """Of a run whose config has a name of its own."""
    assert shipped_base(flatten(read_run(killed.folder).config), 'mine.py')[0] == 'hg_2stack_synthetic.py'
