"""Resuming from checkpoints that attack, and in work directories that were copied or moved."""

import collections
import shutil

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from toy_training import forget_runners

from hg_plugin import apis
from hg_plugin.engine.resume.guard import own_messages
from hg_plugin.utils import checkpoint


@pytest.fixture(autouse=True)
def no_instances():
    forget_runners()


@pytest.fixture(scope='module')
def config(tmp_path_factory, small_config):
    """A config file of a tiny network that trains for one epoch of two iterations and validates."""
    folder = tmp_path_factory.mktemp('resume')
    cfg = small_config(
        *(4, 2),
        train_cfg=dict(max_epochs=1, val_interval=1),
        model=dict(backbone=dict(channels=8)),
        default_hooks=dict(checkpoint=dict(max_keep_ckpts=1)),
    )
    cfg.dump(folder / 'config.py')
    return folder / 'config.py'


def train(config, work_dir, resume=False, epochs=2):
    """Train with the plugin's own runner. Returns the last epoch."""
    options = {'train_cfg.max_epochs': epochs}
    apis.train(str(config), work_dir=str(work_dir), resume=resume, cfg_options=options)
    return epoch(work_dir)


def epoch(work_dir):
    return torch.load(work_dir / (work_dir / 'last_checkpoint').read_text())['meta']['epoch']


def resume_with_mmengine(config, work_dir):
    """Train with MMEngine's runner alone, as MMPose's train.py does. Returns the last epoch."""
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(dict(work_dir=str(work_dir), resume=True, train_cfg=dict(max_epochs=2)))
    Runner.from_cfg(cfg).train()
    return epoch(work_dir)


def edit(path, change):
    state = torch.load(path)
    change(state['meta'], state['message_hub']['runtime_info'])
    torch.save(state, path)


@pytest.fixture(scope='module')
def one_epoch(config):
    """The work directory of a training of one epoch, whose best checkpoint any other one replaces."""
    work_dir = config.parent / 'one_epoch'
    train(config, work_dir, epochs=1)
    return work_dir


@pytest.fixture
def run(one_epoch, tmp_path):
    """A work directory as of :func:`one_epoch`, where it was trained, to change."""
    work_dir = shutil.copytree(one_epoch, tmp_path / 'run')
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
    # as if it had been written after the validation
    best = dict(best_ckpt=str(work_dir / 'best_Mean_epoch_1.pth'), best_score=-1.0, validated=1)
    edit(work_dir / 'epoch_1.pth', lambda meta, info: info.update(best))
    return work_dir


def checkpoints(work_dir):
    return sorted(path.name for path in work_dir.glob('*.pth'))


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


RESUMED = ['best_Mean_epoch_2.pth', 'epoch_2.pth']


def test_nothing_in_a_checkpoint_is_run_or_followed(config, run, tmp_path):
    others = tmp_path / 'others'
    (others / 'folder.pth').mkdir(parents=True)
    for name in ('best_Mean_epoch_1.pth', 'file.pth', 'folder.pth/file'):
        (others / name).write_text('of somebody else')
    (run / 'epoch_').mkdir()  # so that there is a way through it
    before = content(others)

    def attack(meta, info):
        meta['config'] = info['cfg'] = f'open({str(others / "run")!r}, "w")'
        info.update(
            best_ckpt=str(others / 'best_Mean_epoch_1.pth'),
            last_ckpt=str(others / 'folder.pth'),
            keep_ckpt_ids=['/../../others/file', '/../../others/folder', 1],
        )

    edit(run / 'epoch_1.pth', attack)
    last = resume_with_mmengine(config, run)
    assert content(others) == before
    assert last == 2 and checkpoints(run) == RESUMED
    info = torch.load(run / 'best_Mean_epoch_2.pth')['message_hub']['runtime_info']
    assert info['best_ckpt'] == str(run / 'best_Mean_epoch_2.pth') and 'others' not in info['cfg']


def test_a_copied_work_directory_leaves_the_original_untouched(config, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / 'copy')
    before = content(run)
    assert train(config, copy, resume=True) == 2
    assert content(run) == before and checkpoints(copy) == RESUMED
    assert (copy / 'last_checkpoint').read_text() == 'epoch_2.pth'


def test_a_run_that_goes_on_from_anothers_checkpoint_takes_nothing_from_either(config, run, tmp_path):
    other = tmp_path / 'other'
    other.mkdir()
    (other / 'epoch_1.pth').write_text('of an older run')
    (other / 'best_Mean_epoch_1.pth').write_text('of an older run')
    before = content(run)
    assert train(config, other, resume=str(run / 'epoch_1.pth')) == 2
    assert content(run) == before
    assert checkpoints(other) == RESUMED
    earlier = {path.name: path.read_text() for path in other.glob('earlier_*/*')}
    assert earlier == dict.fromkeys(['epoch_1.pth', 'best_Mean_epoch_1.pth'], 'of an older run')


@pytest.mark.parametrize('named', [True, False])
def test_a_checkpoint_is_read_once(config, run, monkeypatch, named):
    read, stock = [], checkpoint.load_weights_only
    monkeypatch.setattr(checkpoint, 'load_weights_only', lambda path: read.append(path) or stock(path))
    assert train(config, run, resume=str(run / 'epoch_1.pth') if named else True) == 2
    assert read == [str(run / 'epoch_1.pth')]


def test_options_of_resume_are_mmengines(config, run):
    cfg = Config.fromfile(config)
    cfg.work_dir = str(run)
    runner = Runner.from_cfg(cfg)
    runner.resume(str(run / 'epoch_1.pth'), resume_optimizer=False)
    assert runner.epoch == 1 and not runner.optim_wrapper.optimizer.state


def info(folder='/run', **runtime_info):
    resumed = dict.fromkeys(runtime_info, True)
    hub = own_messages(dict(log_scalars={}, runtime_info=runtime_info, resumed_keys=resumed), folder)
    assert hub['resumed_keys'].keys() == hub['runtime_info'].keys()
    return hub['runtime_info']


@pytest.mark.parametrize('path', ['/b/best_a_epoch_007.pth', r'D:\best_a_epoch_007.pth'])
def test_best_checkpoints_are_found_in_the_folder(path):
    own = '/run/best_a_epoch_007.pth'
    assert info(best_ckpt=path, best_ckpt_a=path, own=1) == dict(best_ckpt=own, best_ckpt_a=own, own=1)
    assert info(best_ckpt=path, keep_ckpt_ids=[1], folder=None) == {}


@pytest.mark.parametrize('path', ['/run/epoch_007.pth', ['best_a_epoch_007.pth']])
def test_what_is_no_best_checkpoint_is_dropped(path):
    assert info(best_ckpt=path, best_ckpt_a=path, best_score=1.0) == dict(best_score=1.0)
    assert info(keep_ckpt_ids=[1, '2', '/../x', 3.0, True, -1, [4], 5]) == dict(keep_ckpt_ids=[1, 5])
    assert info(keep_ckpt_ids='/../x') == {}


def test_a_disguised_path_is_not_used():
    """MMEngine calls what a dict has in place of its methods."""
    disguised = collections.OrderedDict(best_ckpt='/etc/passwd')
    disguised.items = lambda: []
    assert info(**disguised) == {}
