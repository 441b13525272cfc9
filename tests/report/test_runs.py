import fcntl
import json
import operator
import shutil

import pytest
from fake_run import FakeRun
from mmengine.config import Config

from hg_plugin.compat.mmengine import MIM
from hg_plugin.report.runs import merge, read_run
from hg_plugin.report.settings import differences, flatten, read_settings, shipped_base
from hg_plugin.utils.errors import InputError

BAD = 'ERROR', 'unreadable images', 'images/7.jpg cannot be read.'


@pytest.fixture(scope='module')
def killed(tmp_path_factory):
    """A training of 4 epochs of 20 iterations: killed after 50, resumed after 40 and complete."""
    run = FakeRun(tmp_path_factory.mktemp('runs') / 'killed', **{'train_cfg.max_epochs': 4})
    run.start(0, 50, events=[(15, 'WARNING', 'skipped steps', '3 of 10'), (18, *BAD), (35, *BAD)])
    run.start(40, 80, events=[(60, 'WARNING', 'divergence', 'low'), (70, 'WARNING', 'other', 'Something')])
    return run


@pytest.fixture
def folder(killed, tmp_path):
    return shutil.copytree(killed.folder, tmp_path / 'run')


def column(rows, key):
    return [row[key] for row in rows if key in row]


def test_curves_of_a_resumed_run_have_every_iteration_once(killed):
    run = read_run(killed.folder)
    assert column(run.train, 'iter') == [*range(10, 90, 10)]
    assert column(run.val, 'x') == [1, 2, 3, 4]
    assert run.unit == 'epoch' and run.train[-1]['x'] == 4
    assert (run.iteration, run.total, run.status) == (80, 4, 'complete')
    assert run.main_metric == 'Mean' and run.metrics['Mean'] == run.val[-1]['Mean']
    assert run.images_per_second == pytest.approx(8 * 2 / 0.2)  # of two processes
    assert run.seconds == pytest.approx((50 + 40) * 0.25)
    kinds = {15: 'skipped steps', 18: BAD[1], 35: BAD[1], 40: 'resumed', 60: 'divergence', 70: 'other'}
    assert {event['iter']: event['kind'] for event in run.events} == kinds
    (images,) = [event for event in merge(run.events) if event['kind'] == 'unreadable images']
    assert (images['count'], images['iter'], images['last']) == (2, 18, 35)


ODD = ['5', 'null', '[1]', '"lr"', '{"lr": 1, "step": "x"}', '{"lr": 1}', '[' * 10**5]
start_of = operator.itemgetter(slice(24))


@pytest.mark.parametrize('line', [*ODD, '{"kind": "other"}'], ids=start_of)
def test_an_odd_line_is_passed_over(folder, killed, line):
    for file in (*folder.glob('2*/vis_data/scalars.json'), *folder.glob('2*/events.jsonl')):
        file.write_text(f'{line}\n{file.read_text()}')
    before, run = read_run(killed.folder), read_run(folder)
    assert (run.train, run.events, run.val[-1]) == (before.train, before.events, before.val[-1])


@pytest.mark.parametrize('record', [*ODD, '{"processes": "x", "environment": "y"}'], ids=start_of)
def test_a_damaged_record_is_passed_over(folder, record):
    sorted(folder.glob('2*/run.json'))[0].write_text(record)
    run = read_run(folder)
    assert (run.iteration, run.record['processes'], run.record['device']) == (80, 2, 'A fast GPU')


def test_starts_in_order_whatever_the_clock_said(folder):
    """As after summer time ends, in another time zone, or with a clock that was set back."""
    (_, second) = sorted(folder.glob('2*'))
    second.rename(second.with_name('20200101_000000'))
    run = read_run(folder)
    assert (run.others, len(run.starts), run.iteration) == (0, 2, 80)


def test_a_run_that_was_killed(folder):
    """Without its second start, and cut off in a line."""
    second = sorted(folder.glob('2*'))[1]
    shutil.rmtree(second)
    for name in ('vis_data/scalars.json', 'events.jsonl'):
        (file,) = folder.glob(f'2*/{name}')
        file.write_text(file.read_text()[:-30])
    run = read_run(folder)
    assert run.iteration == 50 and run.train[-1]['iter'] == 40 and run.events[-1]['iter'] == 18
    assert run.status == 'incomplete'
    with open(folder / '.lock', 'ab') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert read_run(folder).status == 'going on'


@pytest.mark.parametrize(
    'event, status',
    [(('INFO', 'signal', ''), 'ended by a signal'), (('ERROR', 'divergence', ''), 'diverged')],
)
def test_why_a_run_ended(tmp_path, event, status):
    FakeRun(tmp_path).start(0, 20, events=[(20, *event)])
    assert read_run(tmp_path).status == status


def test_only_the_newest_training_of_a_folder(folder, killed):
    newest = FakeRun.__new__(FakeRun)
    vars(newest).update(vars(killed), folder=folder)
    newest.start(0, 20)
    run = read_run(folder)
    assert run.others == 1 and column(run.train, 'iter') == [10, 20]
    # resumed from a checkpoint of another folder
    place = newest.start(40, 60, run_id='b')
    run = read_run(folder)
    assert run.others == 2 and column(run.train, 'iter') == [50, 60]
    # a test writes its folder, too
    shutil.copytree(place, folder / '20990101_000000')
    (folder / '20990101_000000/run.json').unlink()
    (folder / '20990101_000000/vis_data/scalars.json').write_text(json.dumps(dict(Mean=1.0, step=0)))
    assert read_run(folder) == run


@pytest.mark.parametrize('name, problem', [('absent', 'does not exist'), ('.', 'holds no log')])
def test_a_folder_without_a_training(tmp_path, name, problem):
    with pytest.raises(InputError, match=problem):
        read_run(tmp_path / name)


def test_settings(killed):
    shipped = Config.fromfile(MIM / 'configs/hg_2stack_synthetic.py')
    own = flatten(read_run(killed.folder).config)
    assert own['optim_wrapper.optimizer.lr'] == str(shipped.optim_wrapper.optimizer.lr)
    name, base = shipped_base(own, 'hg_2stack_synthetic.py')
    assert name == 'hg_2stack_synthetic.py'
    assert differences([own, base]) == {'train_cfg.max_epochs': ['4', str(shipped.train_cfg.max_epochs)]}
    settings = dict(a=dict(b=(1, (2,))), c=[dict(d=None)], e={})
    assert flatten(settings) == {'a.b': '[1, [2]]', 'c.0.d': 'None', 'e': '{}'}


@pytest.mark.slow
def test_nearest_shipped_config(killed):
    """Of a run whose config has a name of its own."""
    assert shipped_base(flatten(read_run(killed.folder).config), 'mine.py')[0] == 'hg_2stack_synthetic.py'


@pytest.mark.parametrize('path', sorted((MIM / 'configs').glob('*.py')), ids=lambda path: path.stem)
def test_settings_are_those_of_the_config(tmp_path, path):
    cfg = Config.fromfile(path, import_custom_modules=False)
    (tmp_path / 'config.py').write_text(cfg.pretty_text)
    assert flatten(read_settings(tmp_path / 'config.py')) == flatten(cfg.to_dict())


def test_settings_are_read_and_not_run(tmp_path):
    file = tmp_path / 'config.py'
    call = f"os.mkdir('{tmp_path}/ran')"
    file.write_text(f'import os\na = {call}\nb = dict(c=-1.5, d={{0: (1, [{call}])}}, e=x.y)')
    assert read_settings(file) == dict(a=call, b=dict(c=-1.5, d={0: [1, [call]]}, e='x.y'))
    assert not (tmp_path / 'ran').exists()
    file.write_text('a = (')
    with pytest.raises(InputError, match='settings'):
        read_settings(file)
