"""The commands of README and docs run as they are written: on a few synthetic persons, with networks of a few
channels and trainings of one epoch."""

import ast
import json
import os
import os.path as osp
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from docs_commands import PAGES, ROOT, commands, write_files

from hg_plugin.mpii_format import JOINTS, load_annotations

# run at Python's start: the commands stay as they are written
SMALLER = """
from mmengine.config import Config
stock = Config.fromfile
def small(*args, **kwargs):
    cfg = stock(*args, **kwargs)
    if 'model' in cfg and 'lspet_128' not in str(args):  # of which the package has weights
        if 'finetune' not in str(args):
            cfg.model.backbone.update(channels=8, depth=1)
        length = 'max_iters' if 'max_iters' in cfg.train_cfg else 'max_epochs'
        cfg.train_cfg.update({length: 1, 'val_interval': 1})
        for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            cfg[name].update(num_workers=0, persistent_workers=False, batch_size=2)
    return cfg
Config.fromfile = staticmethod(small)
"""
# what this machine has not: other nodes, Slurm, eight GPUs, a camera, downloads; and what other tests run
ELSEWHERE = (
    r'make |slurm|dist_run|mpii.py (CHECKPOINT )?8|pytest|benchmarks/|projects/|infer (0|rtsp)'
    r'|prepare.(mpii|lsp)|convert_checkpoint|work_dirs/a|make_synthetic|serve|examples|_mpii_test|lspet_crops'
    # weights of the network of the package, before it was one
    r'|lspet_128.py (LAST|CHECKPOINT)'
)
VALUES = {
    'CHECKPOINT': 'work_dirs/hg_2stack_mpii/epoch_1.pth',
    'CONFIG': 'configs/hg_2stack_mpii.py',
    'CONFIG.py': 'configs/hg_2stack_mpii.py',
    'IMAGES...': 'data/mpii/images',
    'INPUT...': 'data/mpii/images',
    'LAST.pth': 'work_dirs/hg_2stack_mpii/epoch_1.pth',
    'BEFORE.pth': 'work_dirs/hg_2stack_mpii/epoch_1.pth',
    'data/mine/work_dirs/finetune/best_PCK_epoch_20.pth': 'data/mine/work_dirs/finetune/best_PCK_epoch_1.pth',
}


def annotate(data, photographs):
    """Copies the validation persons, annotated as labelme does."""
    photographs.mkdir()
    persons = load_annotations(data / 'annotations/mpii_val.json')
    for image, joints in zip(persons['image'], persons['joints'].tolist()):
        shutil.copy(data / 'images' / image, photographs)
        shapes = [dict(label=name, points=[joint], shape_type='point') for name, joint in zip(JOINTS, joints)]
        text = json.dumps(dict(imagePath=image, shapes=shapes))
        Path(photographs, image).with_suffix('.json').write_text(text)


@pytest.fixture(scope='module')
def project(tmp_path_factory):
    """A folder as the repository, with data."""
    folder = tmp_path_factory.mktemp('project')
    for name in ('hg_plugin', 'configs', 'tools', 'benchmarks', 'projects', 'examples'):
        (folder / name).symlink_to(ROOT / name)
    (folder / 'data').mkdir()
    (folder / 'start').mkdir()
    (folder / 'start/sitecustomize.py').write_text(SMALLER)
    (folder / 'mine.py').write_text("_base_ = ['hg_plugin::hg_2stack_mpii.py']\n")
    write_files(ROOT / 'docs/write_your_own.md', folder)
    make = [sys.executable, '-m', 'hg_plugin', 'make_synthetic', 'data/mpii', '--train', '8', '--val', '4']
    subprocess.run(make, cwd=folder, check=True, capture_output=True)
    subprocess.run(
        [sys.executable, 'make_csv.py'], cwd=folder, check=True, env={**os.environ, 'PYTHONPATH': str(ROOT)}
    )
    annotate(folder / 'data/mpii', folder / 'photographs')
    for name in ('my_persons', 'lspet_dataset', 'lspet_mpii', 'synthetic'):
        (folder / 'data' / name).symlink_to(folder / 'data/mpii')
    return folder


@pytest.mark.slow
def test_the_commands_of_the_docs_run(project):
    paths = [str(project / 'start'), str(project), str(ROOT)]
    environment = {
        **os.environ,
        'PATH': os.pathsep.join([osp.dirname(sys.executable), os.environ['PATH']]),
        'PYTHONPATH': os.pathsep.join(paths),
        'OMP_NUM_THREADS': '1',
    }
    settings = dict(cwd=project, env=environment, capture_output=True, text=True)
    programs = dict(python=[sys.executable], hg_plugin=[sys.executable, '-m', 'hg_plugin'])
    lines = [['python', 'tools/train.py', 'configs/hg_2stack_mpii.py']]
    for page in PAGES:
        lines += [line for line in commands(page) if line not in lines]
    failed = {}
    for line in lines:
        text = ' '.join(line)
        if re.search(ELSEWHERE, text) or ('hg_plugin report' in text and not find_spec('plotly')):
            continue
        if 'eval_pckh' in text:
            test = [sys.executable, 'tools/test.py', VALUES['CONFIG'], VALUES['CHECKPOINT']]
            test += ['--cfg-options', 'test_evaluator.pred_file=pred.mat']
            subprocess.run(test, check=True, **settings)
        for out in project.glob('OUT.*'):  # OUT.bin of one format is not to be replaced by that of another
            out.unlink()
        words = [VALUES.get(word, word) for word in line]
        words[:1] = programs.get(words[0], words[:1])
        done = subprocess.run(words, timeout=600, **settings)
        print(done.returncode, text, flush=True)
        if done.returncode:
            failed[text] = (done.stdout + done.stderr)[-600:]
    assert not failed, '\n\n'.join(f'{line}\n{out}' for line, out in failed.items())
    assert Path(project, 'pckh.png').stat().st_size > 1000


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(real_data, tmp_path, monkeypatch):
    pytest.importorskip('pandas')
    monkeypatch.chdir(tmp_path)
    shutil.copy(real_data('mpii_test_pictures') / '025508722.jpg', 'photo.jpg')
    shown, names = [], {}
    monkeypatch.setattr(sys, 'displayhook', shown.append)
    for cell in json.loads((ROOT / 'examples/photo.ipynb').read_text())['cells']:
        assert not cell.get('outputs')
        if cell['cell_type'] == 'code':
            statements = ast.Interactive(ast.parse(''.join(cell['source'])).body)
            exec(compile(statements, 'photo.ipynb', 'single'), names)
    assert [value is names['poses'] for value in shown].count(True) == 1
    assert all(value._repr_png_().startswith(b'\x89PNG') for value in shown if hasattr(value, '_repr_png_'))
    assert len(names['poses']) and Path('drawn.jpg').stat().st_size > 1000
