"""The command lines as a user types them, on a few synthetic persons."""

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from hg_plugin import apis
from hg_plugin.utils.checkpoint import kpt_thr_of

CONFIG = 'configs/hg_2stack_synthetic.py'
OPTIONS = {
    'model.backbone.channels': 16,
    'train_dataloader.batch_size': 8,
    **{f'{phase}_dataloader.num_workers': 0 for phase in ('train', 'val', 'test')},
    **{f'{phase}_dataloader.persistent_workers': False for phase in ('train', 'val', 'test')},
    'default_hooks.logger.interval': 1,
}
SMALL = ['--cfg-options', *(f'{key}={value}' for key, value in OPTIONS.items())]


def table(out):
    """The last PCKh table in a command's output, as text."""
    return re.findall(r'PCKh@0.5 in percent.*\n.*AUC\n\S+ +(.*)', out)[-1].split()


@pytest.fixture(scope='module')
def persons(synthetic):
    return synthetic(24, 7)


@pytest.fixture(scope='module')
def trained(persons, tmp_path_factory, start, run):
    """A training, killed after an epoch and resumed for two: work directory, epochs before, output."""
    work_dir = tmp_path_factory.mktemp('work')
    arguments = ['--data-root', str(persons), '--work-dir', str(work_dir), *SMALL, 'train_cfg.val_interval=1']
    command = ['tools/train.py', CONFIG, *arguments]
    process = start(*command, 'train_cfg.max_epochs=1000')
    deadline = time.time() + 200
    while not (work_dir / 'last_checkpoint').exists():
        os.kill(process.pid, 0)
        assert time.time() < deadline, process.printed()
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait()[0] == -signal.SIGKILL
    done = int(re.search(r'epoch_(\d+)', (work_dir / 'last_checkpoint').read_text())[1])
    return work_dir, done, run(*command, f'train_cfg.max_epochs={done + 2}', '--resume')


def test_a_killed_training_goes_on_where_it_stopped(trained):
    work_dir, done, out = trained
    epochs = [int(epoch) for epoch in re.findall(r'Epoch\(train\) +\[(\d+)\]', out)]
    assert sorted(set(epochs)) == [done + 1, done + 2]
    assert f'resumed epoch: {done}' in out
    for key in ('loss_stage0', 'loss_stage1', 'heatmap_peak', 'acc_pose'):
        assert key in out
    assert (work_dir / f'epoch_{done + 2}.pth').exists() and list(work_dir.glob('best_Mean_*.pth'))
    assert table(out) and 'Traceback' not in out


def test_testing_draws_dumps_and_saves_what_the_offline_tool_scores_alike(trained, persons, run, tmp_path):
    work_dir, _, _ = trained
    checkpoint = next(work_dir.glob('best_Mean_*.pth'))
    arguments = ['--data-root', persons, '--work-dir', tmp_path, '--dump', tmp_path / 'all.pkl']
    arguments += ['--out', tmp_path / 'metrics.json', '--show-dir', 'drawn', *SMALL]
    arguments.append(f'test_evaluator.pred_file={tmp_path}/pred.mat')
    out = run('tools/test.py', CONFIG, checkpoint, *arguments)
    assert len(pickle.loads((tmp_path / 'all.pkl').read_bytes())) == 7
    grid = cv2.imread(str(tmp_path / 'predictions.png'))
    assert grid.shape == (20 + 2 * 192, 4 * 2 * 192, 3)
    (drawn,) = re.findall('Drawn predictions are in (.*)[.]', out)
    assert len(os.listdir(drawn)) == 7
    # the config is in the log alone, so that the first figures are seen
    (log,) = tmp_path.rglob('*.log')
    assert 'Config:' in log.read_text() and 'Config:' not in out
    metrics = json.loads((tmp_path / 'metrics.json').read_text())
    scores = [f'{value:.2f}' for name, value in metrics.items() if '/' not in name]  # not of each stage
    assert scores == table(out)
    truth = persons / 'annotations/mpii_gt_val.mat'
    assert table(run('-m', 'hg_plugin', 'eval_pckh', tmp_path / 'pred.mat', '--gt', truth)) == table(out)


@pytest.mark.parametrize('script', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes_test_as_one(trained, persons, run, start, launch, free_port, tmp_path, script):
    """By the script, or in two processes that this one starts, which is quick, and reparameterized."""
    work_dir, _, _ = trained
    files = CONFIG, next(work_dir.glob('best_Mean_*.pth'))
    arguments = ['--data-root', persons, *SMALL, 'test_dataloader.batch_size=2']
    one = run('tools/test.py', *files, '--work-dir', tmp_path / 'one', *arguments)
    arguments = ['--work-dir', tmp_path / 'two', *arguments]
    if script:
        two = launch('bash', 'tools/dist_test.sh', *files, '2', *arguments).stdout
    else:
        arguments.append('test_cfg.type=ReparameterizedTestLoop')
        env = dict(WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
        command = 'tools/test.py', *files, '--launcher', 'pytorch', *arguments
        first, second = (start(*command, RANK=rank, LOCAL_RANK=rank, **env) for rank in '01')
        code, two = first.wait()
        assert code == 0 == second.wait()[0] and 'reparameterized network' in two, two[-3000:]
    assert table(one) == table(two)


def test_two_processes_train(persons, tmp_path, launch):
    arguments = ['--data-root', persons, '--work-dir', tmp_path, *SMALL]
    arguments += ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    result = launch('bash', 'tools/dist_train.sh', CONFIG, '2', *arguments)
    assert '[1][2/2]' in result.stdout  # 24 persons, 2 processes, 8 persons a step
    assert (tmp_path / 'epoch_1.pth').exists() and table(result.stdout)


@pytest.mark.skipif(not os.path.exists('/proc/self/task'), reason='counts threads as Linux does')
def test_no_thread_of_gloo_outlives_python(persons, tmp_path, run, free_port):
    (tmp_path / 'watched.py').write_text(
        'import atexit, os, runpy\n'
        'atexit.register(lambda: print("threads at the end:", len(os.listdir("/proc/self/task"))))\n'
        'runpy.run_path("tools/train.py", run_name="__main__")\n'
    )
    arguments = ['--launcher', 'pytorch', '--data-root', persons, '--work-dir', tmp_path, *SMALL]
    env = dict(RANK='0', LOCAL_RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT=free_port())
    out = run(tmp_path / 'watched.py', CONFIG, *arguments, 'train_cfg.max_epochs=1', **env)
    assert 'threads at the end: 1\n' in out, out[-3000:]


MISTAKE = """
import runpy
errors = runpy.run_path('hg_plugin/utils/errors.py')
@errors['command']
def main():
    raise errors['InputError']('The file does not exist.')
main()
"""


KILLED = """
import os, signal
if os.environ['RANK'] == '1':
    os.kill(os.getpid(), signal.SIGKILL)
signal.pause()
"""


@pytest.mark.parametrize(
    'script, sentence', [(MISTAKE, 'The file does not exist.'), (KILLED, 'process 1 was ended by SIGKILL;')]
)
def test_what_ends_one_of_two_processes_is_one_sentence(tmp_path, launch, script, sentence):
    """Without importing the package, whose commands all end like this one."""
    (tmp_path / 'script.py').write_text(script)
    command = sys.executable, 'tools/dist_run.py', '--nproc_per_node=2', tmp_path / 'script.py'
    result = launch(*command, stderr=subprocess.PIPE, code=1)
    assert 'Traceback' not in result.stderr
    assert result.stderr.splitlines()[-1].startswith(f'error: {sentence}')


def test_coco_with_mmposes_data_set_and_metric(run, tmp_path):
    """On four persons with COCO's keypoints anywhere in images of noise."""
    random = np.random.RandomState(0)
    (tmp_path / 'annotations').mkdir()
    for split in ('train2017', 'val2017'):
        (tmp_path / split).mkdir()
        for i in range(1, 5):
            cv2.imwrite(str(tmp_path / split / f'{i}.jpg'), random.randint(0, 255, (120, 160, 3), np.uint8))
        annotations = Path(__file__).with_name('person_keypoints.json')
        shutil.copy(annotations, tmp_path / f'annotations/person_keypoints_{split}.json')
    arguments = ['--data-root', tmp_path, '--work-dir', tmp_path / 'work', *SMALL]
    arguments += ['train_dataloader.batch_size=4', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1']
    out = run('tools/train.py', 'configs/hg_2stack_coco.py', *arguments)
    assert re.search(r'coco/AP: \d', out) and list((tmp_path / 'work').glob('best_coco_AP_*.pth'))


@pytest.fixture
def checkpoints(tmp_path):
    """A folder with checkpoints that are wrong."""
    torch.save(dict(state_dict={'backbone.x': torch.ones(1)}), tmp_path / 'other.pth')
    torch.save(dict(state_dict={}, meta=os.system), tmp_path / 'evil.pth')
    (tmp_path / 'cut.pth').write_bytes((tmp_path / 'other.pth').read_bytes()[:200])
    return tmp_path


@pytest.mark.parametrize(
    'command, message',
    [
        ('train.py CONFIG --resume {}/other.pth', 'no state of a training'),
        ('train.py CONFIG --work-dir {}/cut.pth', 'cut.pth cannot be created'),
        ('train.py CONFIG --cfg-options load_from={}/other.pth', 'No weight in .*other.pth'),
        ('train.py CONFIG --cfg-options model.backbone.num_stack=3', 'no model or runner.*num_stack'),
        ('train.py CONFIG --cfg-options train_cfg.max_epoch=3', r"'max_epoch'.* \(runner.py, line \d+\)"),
        ('train.py CONFIG --cfg-options auto_scale_lr=None --auto-scale-lr', 'no auto_scale_lr'),
        ('test.py CONFIG {}/other.pth', 'missing; backbone.x is left over'),
        ('test.py CONFIG {}/evil.pth', 'more than weights'),
        ('test.py CONFIG {}/cut.pth --out all.txt', '[.]json'),
    ],
)
def test_mistakes(tool, persons, checkpoints, command, message):
    name, *arguments = command.replace('CONFIG', CONFIG).format(checkpoints).split()
    defaults = ['--work-dir', checkpoints, '--data-root', persons]
    assert re.search(message, tool(f'tools/{name}', *defaults, *arguments)[0])


@pytest.mark.parametrize('name, files', [('train.py', []), ('test.py', ['other.pth'])])
def test_the_config_is_checked_before_anything_is_made(tool, checkpoints, name, files):
    (checkpoints / 'own.py').write_text(f"_base_ = ['{Path(CONFIG).absolute()}']\ndata_root = 'elsewhere/'")
    files = [checkpoints / file for file in ('own.py', *files)]
    assert 'data_root' in tool(f'tools/{name}', *files, '--work-dir', checkpoints / 'work')[0]
    assert not (checkpoints / 'work').exists()


def test_the_face_trains_and_tests_a_config_object(trained, persons, tmp_path, monkeypatch):
    """With weights of a distributed model to start from, whose names begin with ``module.``."""
    work_dir, _, _ = trained
    checkpoint = str(next(work_dir.glob('best_Mean_*.pth')))
    state = torch.load(checkpoint)['state_dict']
    torch.save({f'module.{name}': tensor for name, tensor in state.items()}, tmp_path / 'module.pth')
    cfg = Config.fromfile(CONFIG)
    options = dict(data_root=str(persons), work_dir=str(tmp_path))
    small = {**OPTIONS, 'optim_wrapper.optimizer.lr': 0, 'train_cfg.max_epochs': 1}
    load_from = {'load_from': str(tmp_path / 'module.pth')}
    model = apis.train(cfg, validate=False, cfg_options={**small, **load_from}, **options)
    for name, parameter in model.named_parameters():  # nothing was learned
        assert torch.equal(parameter, state[name]), name
    monkeypatch.setattr('hg_plugin.evaluation.mpii_pckh.np.quantile', lambda *_: 0.25)
    metrics = apis.test(cfg, checkpoint, cfg_options=OPTIONS, **options)
    assert kpt_thr_of(checkpoint) == 0.25
    assert {'Mean', 'Mean@0.1', 'AUC'} <= metrics.keys() and 0 <= metrics['Mean'] <= 100
    assert 'work_dir' not in cfg


@pytest.mark.parametrize('main', [True, False])
def test_only_the_main_process_writes_the_metrics(monkeypatch, tool, tmp_path, main):
    monkeypatch.setattr('mmengine.dist.is_main_process', lambda: main)
    monkeypatch.setattr('hg_plugin.training.runner.test', lambda *args, **kwargs: dict(Mean=np.float64(50)))
    tool('tools/test.py', CONFIG, 'x.pth', '--out', tmp_path / 'metrics.json')
    assert [path.read_text() for path in tmp_path.iterdir()] == ['{"Mean": 50.0}'] * main
