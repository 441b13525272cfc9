"""The command lines as a user types them, on a few synthetic persons."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import torch

from hg_plugin.prepare.synthetic import make_synthetic

CONFIG = 'configs/hg_2stack_synthetic.py'
SMALL = [
    '--cfg-options',
    'model.backbone.channels=16',
    'train_dataloader.batch_size=8',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
    'default_hooks.logger.interval=1',
]
FIGURES = ('Head', 'Shoulder', 'Elbow', 'Wrist', 'Hip', 'Knee', 'Ankle', 'Mean', 'Mean@0.1', 'AUC')


def table(out):
    """The last PCKh table in a command's output, as text."""
    return re.findall(r'PCKh@0.5 in percent.*\n.*AUC\n\S+ +(.*)', out)[-1].split()


@pytest.fixture(scope='module')
def persons(tmp_path_factory):
    folder = tmp_path_factory.mktemp('synthetic')
    make_synthetic(folder, num_train=24, num_val=7, seed=0, num_workers=1)
    return folder


@pytest.fixture(scope='module')
def trained(persons, tmp_path_factory):
    """The work directory of a training that was killed after its first epoch and resumed to its third, and both outputs."""
    work_dir = tmp_path_factory.mktemp('work')
    command = [
        sys.executable,
        'tools/train.py',
        CONFIG,
        '--data-root',
        str(persons),
        '--work-dir',
        str(work_dir),
        *SMALL,
        'train_cfg.val_interval=1',
    ]
    with open(work_dir / 'killed.txt', 'w') as log:
        process = subprocess.Popen(
            [*command, 'train_cfg.max_epochs=1000'], stdout=log, stderr=subprocess.STDOUT
        )
        deadline = time.time() + 200
        while not (work_dir / 'last_checkpoint').exists():
            assert process.poll() is None and time.time() < deadline, (work_dir / 'killed.txt').read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = int(re.search(r'epoch_(\d+)', (work_dir / 'last_checkpoint').read_text())[1])
    resumed = subprocess.run(
        [*command, f'train_cfg.max_epochs={done + 2}', '--resume'],
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    return work_dir, done, resumed.stdout + resumed.stderr


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
    code, out = run(
        'tools/test.py',
        CONFIG,
        checkpoint,
        '--data-root',
        persons,
        '--work-dir',
        tmp_path,
        '--dump',
        tmp_path / 'all.pkl',
        '--show-dir',
        'drawn',
        *SMALL,
        f'test_evaluator.pred_file={tmp_path}/pred.mat',
    )
    assert code == 0, out
    assert len(pickle.loads((tmp_path / 'all.pkl').read_bytes())) == 7
    grid = cv2.imread(str(tmp_path / 'predictions.png'))
    assert grid.shape == (28 + 2 * 192, 4 * 2 * 192, 3)
    assert len(list(tmp_path.rglob('drawn/*.*'))) == 7
    code, offline = run(
        'tools/eval_pckh.py', tmp_path / 'pred.mat', '--gt', persons / 'annotations/mpii_gt_val.mat'
    )
    assert code == 0 and table(offline) == table(out)


@pytest.mark.parametrize('reparameterize', [False, True])
def test_two_processes_and_one_give_the_same_figures(
    trained, persons, run, tmp_path, free_port, reparameterize
):
    work_dir, _, _ = trained
    checkpoint = next(work_dir.glob('best_Mean_*.pth'))
    arguments = ['--data-root', str(persons), *SMALL, 'test_dataloader.batch_size=2']
    code, one = run('tools/test.py', CONFIG, checkpoint, '--work-dir', tmp_path / 'one', *arguments)
    assert code == 0, one
    two = subprocess.run(
        [
            'bash',
            'tools/dist_test.sh',
            CONFIG,
            str(checkpoint),
            '2',
            '--work-dir',
            str(tmp_path / 'two'),
            *arguments,
            f'default_hooks.reparameterize.enable={reparameterize}',
        ],
        env={**os.environ, 'PORT': free_port(), 'PYTHON': sys.executable},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert two.returncode == 0, two.stdout[-3000:]
    assert table(one) == table(two.stdout)
    assert ('The test runs the reparameterized network.' in two.stdout) == reparameterize


def test_two_processes_train(persons, tmp_path, free_port):
    result = subprocess.run(
        [
            'bash',
            'tools/dist_train.sh',
            CONFIG,
            '2',
            '--data-root',
            str(persons),
            '--work-dir',
            str(tmp_path),
            *SMALL,
            'train_cfg.max_epochs=1',
            'train_cfg.val_interval=1',
        ],
        env={**os.environ, 'PORT': free_port(), 'PYTHON': sys.executable},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout[-3000:]
    assert '[1][2/2]' in result.stdout  # 24 persons, 2 processes, 8 persons a step
    assert (tmp_path / 'epoch_1.pth').exists() and table(result.stdout)


@pytest.mark.skipif(not os.path.exists('/proc/self/task'), reason='counts threads as Linux does')
def test_no_thread_of_gloo_outlives_python(persons, tmp_path, free_port):
    (tmp_path / 'watched.py').write_text(
        'import atexit, os, runpy\n'
        'atexit.register(lambda: print("threads at the end:", len(os.listdir("/proc/self/task"))))\n'
        'runpy.run_path("tools/train.py", run_name="__main__")\n'
    )
    result = subprocess.run(
        [
            sys.executable,
            str(tmp_path / 'watched.py'),
            CONFIG,
            '--launcher',
            'pytorch',
            '--data-root',
            str(persons),
            '--work-dir',
            str(tmp_path),
            *SMALL,
            'train_cfg.max_epochs=1',
            'train_cfg.val_interval=1',
        ],
        env={
            **os.environ,
            'PYTHONPATH': os.getcwd(),
            'OMP_NUM_THREADS': '1',
            'RANK': '0',
            'LOCAL_RANK': '0',
            'WORLD_SIZE': '1',
            'MASTER_ADDR': '127.0.0.1',
            'MASTER_PORT': free_port(),
        },
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout[-3000:]
    assert 'threads at the end: 1\n' in result.stdout, result.stdout[-3000:]


def test_a_mistake_of_two_processes_is_one_sentence_too(tmp_path, free_port):
    result = subprocess.run(
        [
            'bash',
            'tools/dist_train.sh',
            CONFIG,
            '2',
            '--data-root',
            str(tmp_path),
            '--work-dir',
            str(tmp_path / 'work'),
        ],
        env={**os.environ, 'PORT': free_port(), 'PYTHON': sys.executable},
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert result.returncode == 1
    assert re.search('error: The annotation file .*mpii_train.json does not exist;.*\n$', result.stderr)
    assert result.stderr.count('error: ') == 1 and 'Traceback' not in result.stderr


def test_a_process_that_is_killed_is_named(tmp_path, free_port):
    (tmp_path / 'killed.py').write_text(
        'import os, signal, time\n'
        'if os.environ["RANK"] == "1":\n    os.kill(os.getpid(), signal.SIGKILL)\ntime.sleep(60)\n'
    )
    result = subprocess.run(
        [
            sys.executable,
            'tools/dist_run.py',
            '--nproc_per_node=2',
            f'--master_port={free_port()}',
            str(tmp_path / 'killed.py'),
        ],
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith('error: the process of rank 1 was ended by SIGKILL;')
    assert 'Traceback' not in result.stderr


def test_coco_with_mmposes_data_set_and_metric(run, tmp_path):
    (tmp_path / 'train2017').mkdir()
    (tmp_path / 'val2017').mkdir()
    (tmp_path / 'annotations').mkdir()
    random = np.random.RandomState(0)
    for split in ('train2017', 'val2017'):
        images, annotations = [], []
        for i in range(1, 5):
            cv2.imwrite(str(tmp_path / split / f'{i}.jpg'), random.randint(0, 255, (120, 160, 3), np.uint8))
            images.append(dict(id=i, file_name=f'{i}.jpg', width=160, height=120))
            keypoints = np.column_stack([random.uniform(30, 120, (17, 2)), np.full(17, 2)])
            annotations.append(
                dict(
                    id=i,
                    image_id=i,
                    category_id=1,
                    iscrowd=0,
                    area=6400.0,
                    bbox=[20.0, 20.0, 110.0, 95.0],
                    num_keypoints=17,
                    keypoints=keypoints.reshape(-1).tolist(),
                )
            )
        (tmp_path / f'annotations/person_keypoints_{split}.json').write_text(
            json.dumps(dict(images=images, annotations=annotations, categories=[dict(id=1, name='person')]))
        )
    code, out = run(
        'tools/train.py',
        'configs/hg_2stack_coco.py',
        '--data-root',
        tmp_path,
        '--work-dir',
        tmp_path / 'work',
        *SMALL[:5],
        'train_dataloader.batch_size=4',
        *SMALL[5:],
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
    )
    assert code == 0, out
    assert re.search(r'coco/AP: \d', out) and list((tmp_path / 'work').glob('best_coco_AP_*.pth'))


def test_a_mistake_ends_with_one_sentence_and_exit_code_1(run, tmp_path):
    code, out = run('tools/train.py', 'configs/hg_2stack_mpii.py', '--work-dir', tmp_path)
    assert code == 1 and 'Traceback' not in out
    assert re.search(
        '^error: .*data/mpii/annotations/mpii_train.json does not exist; README.md', out, re.MULTILINE
    )


@pytest.mark.parametrize(
    'arguments, message',
    [
        (('tools/train.py', 'configs/hg_3stack.py'), 'configs/hg_3stack.py does not exist'),
        (
            ('tools/train.py', CONFIG, '--cfg-options', "custom_hooks=[dict(type='EMAHook',momentum=0.1)]"),
            'write it into the config',
        ),
        (('tools/train.py', '{}/wrong.py'), 'wrong.py cannot be read'),
        (
            ('tools/train.py', CONFIG, '--resume', '{}/none.pth', '--work-dir', '{}'),
            'none.pth does not exist',
        ),
        (
            ('tools/train.py', CONFIG, '--data-root', '{}', '--work-dir', '{}'),
            'mpii_train.json does not exist',
        ),
        (('tools/test.py', CONFIG, '{}/none.pth', '--work-dir', '{}'), 'none.pth does not exist'),
        (
            ('tools/test.py', CONFIG, '{}/other.pth', '--work-dir', '{}'),
            'does not fit the config.* missing; backbone.x is left over',
        ),
        (('tools/test.py', CONFIG, '{}/evil.pth', '--work-dir', '{}'), 'evil.pth holds more than weights'),
        (
            ('tools/test.py', CONFIG, '{}/cut.pth', '--work-dir', '{}'),
            'cut.pth is no checkpoint or was cut off',
        ),
        (
            ('tools/test.py', CONFIG, '{}/list.pth', '--work-dir', '{}'),
            'list.pth is no checkpoint: it holds a list',
        ),
        (('tools/test.py', CONFIG, '{}/cut.pth', '--dump', 'all.txt'), '--dump all.txt'),
        (('tools/test.py', CONFIG, '{}/cut.pth', '--out', 'all.txt'), '--out all.txt'),
        (('tools/test.py', CONFIG, '{}/cut.pth', '--interval', '0'), '--interval 0: give'),
        (('tools/test.py', CONFIG, '{}/cut.pth', '--out', '{}/none/all.json'), 'all.json cannot be written'),
        (('tools/train.py', CONFIG, '--work-dir', '{}/cut.pth'), 'work directory .*cut.pth cannot be made'),
        (
            ('tools/train.py', CONFIG, '--work-dir', '{}', '--resume', '{}/other.pth'),
            'not the state of a training',
        ),
        (
            ('tools/train.py', CONFIG, '--work-dir', '{}', '--cfg-options', 'load_from={}/other.pth'),
            'No weight in .*other.pth',
        ),
        (
            ('tools/train.py', CONFIG, '--work-dir', '{}', '--cfg-options', 'epochs'),
            '--cfg-options epochs: give KEY=VALUE',
        ),
        (
            ('tools/train.py', CONFIG, '--work-dir', '{}', '--cfg-options', 'model.backbone.num_stack=3'),
            'builds no model or runner.*num_stack',
        ),
        (
            ('tools/train.py', CONFIG, '--work-dir', '{}', '--cfg-options', 'default_hooks.tf32=None'),
            'builds no model or runner.*assert hook is not None',
        ),
        (
            ('tools/train.py', CONFIG, '--work-dir', '{}', '--cfg-options', 'train_cfg.max_epoch=3'),
            r"training or test: TypeError: .*'max_epoch' \(runner.py, line \d+\)",
        ),
        (
            (
                'tools/train.py',
                CONFIG,
                '--work-dir',
                '{}',
                '--cfg-options',
                'train_cfg.type=IterBasedTrainLoop',
            ),
            'training or test: RuntimeError: Only one of `type`',
        ),
        (
            ('tools/train.py', CONFIG, '--work-dir', '{}/work', '--cfg-options', 'train_cfg.max_epochs=0'),
            r'train_cfg.max_epochs is 0; give at least 1\.',
        ),
        (
            ('tools/train.py', CONFIG, '--work-dir', '{}/work', '--cfg-options', 'train_cfg.val_interval=0'),
            'train_cfg.val_interval is 0; give at least 1, or --no-validate',
        ),
        (
            (
                'tools/train.py',
                CONFIG,
                '--work-dir',
                '{}/work',
                '--cfg-options',
                'optim_wrapper.optimizer.type=Adamm',
            ),
            "type is 'Adamm', which no optimiser",
        ),
        (
            (
                'tools/train.py',
                CONFIG,
                '--work-dir',
                '{}/work',
                '--cfg-options',
                'default_hooks.checkpoint.max_keep_ckpts=all',
            ),
            "default_hooks.checkpoint.max_keep_ckpts is 'all'; give a whole number",
        ),
        (
            (
                'tools/train.py',
                CONFIG,
                '--work-dir',
                '{}/work',
                '--cfg-options',
                'default_hooks.checkpoint.save_best=PCK',
            ),
            "save_best is 'PCK', .* Ankle, Mean",
        ),
        (
            (
                'tools/train.py',
                CONFIG,
                '--work-dir',
                '{}/work',
                '--cfg-options',
                'val_dataloader.dataset.headbox_file=',
            ),
            'no headbox_file, .* mpii_gt_',
        ),
        (
            (
                'tools/train.py',
                CONFIG,
                '--work-dir',
                '{}',
                '--data-root',
                '{}/persons',
                '--no-validate',
                '--cfg-options',
                'train_cfg.val_interval=0',
                'default_hooks.checkpoint.save_best=PCK',
                'optim_wrapper.optimizer.lr=-1',
            ),
            'training or test: ValueError: Invalid learning rate: -1',
        ),
        (
            (
                'tools/train.py',
                CONFIG,
                '--work-dir',
                '{}',
                '--data-root',
                '{}/persons',
                '--cfg-options',
                'train_dataloader.batch_size=0',
            ),
            'batch_size=0',
        ),
        (
            (
                'tools/train.py',
                CONFIG,
                '--work-dir',
                '{}',
                '--data-root',
                '{}/persons',
                '--cfg-options',
                'val_evaluator.type=PCK',
            ),
            "training or test: KeyError: 'PCK is not in",
        ),
        (
            (
                'tools/train.py',
                CONFIG,
                '--work-dir',
                '{}',
                '--cfg-options',
                'train_dataloader.dataset.pipeline.1.input_size=(256,256)',
            ),
            'pipeline.1 .TopdownCrop. has input_size',
        ),
        (
            (
                'tools/train.py',
                CONFIG,
                '--work-dir',
                '{}',
                '--cfg-options',
                'model.data_preprocessor.encoder.input_size=(256,256)',
            ),
            'model.data_preprocessor.encoder has input_size',
        ),
        (
            (
                'tools/train.py',
                CONFIG,
                '--work-dir',
                '{}',
                '--cfg-options',
                'model.head.decoder.heatmap_size=(64,64)',
            ),
            'has heatmap_size',
        ),
        (
            (
                'tools/train.py',
                CONFIG,
                '--work-dir',
                '{}/work',
                '--cfg-options',
                'optim_wrapper.optimizer=Adam',
            ),
            "optim_wrapper.optimizer is 'Adam'; give dict",
        ),
        (
            (
                'tools/test.py',
                CONFIG,
                '{}/other.pth',
                '--work-dir',
                '{}/work',
                '--cfg-options',
                'optim_wrapper=3',
            ),
            'optim_wrapper is 3; give dict',
        ),
        (
            (
                'tools/train.py',
                CONFIG,
                '--work-dir',
                '{}/work',
                '--cfg-options',
                'compile=True',
                'model.backbone=3',
            ),
            'model.backbone is 3; give dict',
        ),
        (
            ('tools/train.py', CONFIG, '--work-dir', '{}/work', '--cfg-options', 'model=3'),
            'model is 3; give dict',
        ),
        (
            ('tools/train.py', CONFIG, '--work-dir', '{}/work', '--cfg-options', 'val_dataloader.sampler=3'),
            'val_dataloader.sampler is 3; give dict',
        ),
        (
            (
                'tools/train.py',
                CONFIG,
                '--work-dir',
                '{}/work',
                '--cfg-options',
                'val_dataloader.dataset.pipeline=3',
            ),
            'dataset.pipeline is 3; give a list of dict',
        ),
        (('tools/train.py', '{}/raises.py'), 'raises.py cannot be read: NameError'),
        (('tools/train.py', '{}/empty.py'), 'empty.py has no model'),
    ],
)
def test_mistakes(mistake, persons, tmp_path, arguments, message):
    (tmp_path / 'persons').symlink_to(persons)
    torch.save(dict(state_dict={'backbone.x': torch.ones(1)}), tmp_path / 'other.pth')
    torch.save(dict(state_dict={}, meta=os.system), tmp_path / 'evil.pth')
    (tmp_path / 'cut.pth').write_bytes((tmp_path / 'other.pth').read_bytes()[:200])
    torch.save([1], tmp_path / 'list.pth')
    (tmp_path / 'wrong.py').write_text('model = dict(')
    (tmp_path / 'raises.py').write_text('model = foo')
    (tmp_path / 'empty.py').write_text('')
    assert re.search(message, mistake(*(argument.format(tmp_path) for argument in arguments)))
    assert not (tmp_path / 'work').exists()


def test_a_torch_that_counts_batches_twice_is_refused(mistake, tmp_path, monkeypatch):
    monkeypatch.setattr('hg_plugin.training.runner.torch_before', lambda version: True)
    both = ('--cfg-options', 'compile=True', 'model.backbone.with_cp=True')
    assert 'need torch 2.9 to work together' in mistake(
        'tools/train.py', CONFIG, '--work-dir', tmp_path / 'work', *both
    )
    assert not (tmp_path / 'work').exists()
