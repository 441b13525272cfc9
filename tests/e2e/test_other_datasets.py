"""Wrapped datasets and other joints than MPII's, on five real persons."""

import json
import re

import numpy as np
import pytest

from hg_plugin.prepare.metainfo import metainfo_of, metainfo_text

pytestmark = pytest.mark.slow

BASE = """
_base_ = ['{root}/configs/hg_2stack_mpii.py']
DATA = '{data}'
CODEC = dict(type='MSRAHeatmap', input_size=(64, 64), heatmap_size=(16, 16), sigma=2)
CROP = dict(type='TopdownCrop', input_size=(64, 64), flip_prob=0.5)
TRAIN = [dict(type='GetBBoxCenterScale'), CROP, dict(type='PackKeypoints')]
VAL = [TRAIN[0], dict(type='TopdownCrop', input_size=(64, 64)), dict(type='PackPoseInputs')]
ONE = dict(type='MPIIPoseDataset', data_root=DATA, ann_file='annotations/mpii_val.json')
SCORED = dict(**ONE, headbox_file='annotations/mpii_gt_val.mat', test_mode=True)
loader = dict(batch_size=5, num_workers=0, persistent_workers=False)
own = dict(ann_file='annotations/mpii_val.json', data_root=DATA, pipeline=TRAIN)
train_dataloader = dict(**loader, dataset=own)
val_dataloader = dict(**loader, dataset=dict(data_root=DATA, pipeline=VAL))
test_dataloader = val_dataloader
model = dict(codec=CODEC, backbone=dict(channels=4, depth=2))
train_cfg = dict(max_epochs=1, val_interval=1)
param_scheduler = []
"""


@pytest.fixture
def config(real_data, tmp_path, request):
    """Writes a config over the five persons."""

    def config(text, data=None):
        path = tmp_path / 'config.py'
        base = BASE.format(root=request.config.rootpath, data=data or real_data('mpii_sample'))
        path.write_text(base + text)
        return path

    return config


COMBINED = """
WRISTS = dict(type='KeypointConverter', num_keypoints=16, mapping=[(10, 10), (15, 15)])
MPII = dict(from_file='configs/_base_/datasets/mpii.py')
train_dataloader['dataset'] = dict(
    _delete_=True, type='CombinedDataset', metainfo=MPII, pipeline=TRAIN,
    datasets=[dict(**ONE, pipeline=[]), dict(**ONE, pipeline=[WRISTS])])
val_dataloader['dataset'] = dict(
    _delete_=True, type='CombinedDataset', metainfo=MPII, pipeline=VAL,
    datasets=[dict(**SCORED, pipeline=[WRISTS])])
custom_hooks = [dict(type='StageHeatmapHook', test_persons=24)]
"""


def test_datasets_of_different_keypoints_train_and_are_tested_together(config, run, tmp_path):
    path, work_dir = config(COMBINED), tmp_path / 'work'
    run('tools/train.py', path, '--work-dir', work_dir)
    out = run('tools/test.py', path, work_dir / 'epoch_1.pth', '--work-dir', work_dir)
    row = re.findall(r'AUC\n\S+ +(.*)', out)[-1].split()
    assert [value == '-' for value in row] == [True] * 3 + [False] + [True] * 3 + [False] * 3  # wrists alone
    assert (work_dir / 'predictions.png').exists()


FEW = """
META = dict(from_file=DATA + '/few.py')
model['backbone']['num_keypoints'] = {count}
train_dataloader['dataset']['metainfo'] = val_dataloader['dataset']['metainfo'] = META
val_evaluator = [dict(type='MPIIPCKh', pred_file=DATA + '/pred.mat'), dict(type='AUC', prefix='own'),
                 dict(type='EPE'), dict(type='PCKAccuracy', thr=0.2)]
test_evaluator = val_evaluator
custom_hooks = [dict(type='StageHeatmapHook', test_persons=24)]
"""


# MPII's joints in an order of LSP; more than there are repeat some
LSP = [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9, *range(7)]


@pytest.mark.parametrize('count', [4, 14, 21])
def test_any_number_of_joints_from_end_to_end(sample_set, keep_joints, config, run, tmp_path, count):
    names = [f'point{index}' for index in range(count)]
    names[:2] = ['left_ankle', 'right_ankle']
    keep_joints([0, 5, 9, 8] if count == 4 else LSP[:count])
    (sample_set / 'few.py').write_text(metainfo_text(metainfo_of('few', names, [tuple(names[:2])])))
    path, work_dir = config(FEW.format(count=count), sample_set), tmp_path / 'work'
    run('tools/train.py', path, '--work-dir', work_dir)
    checkpoint = work_dir / 'epoch_1.pth'
    out = run('tools/test.py', path, checkpoint, '--work-dir', work_dir)
    assert all(name in out for name in ('Ankle', 'Point2', 'AUC: ', 'EPE: ', 'PCK: ')), out
    assert (work_dir / 'predictions.png').exists()
    row = re.findall(r'AUC\nfew +(.*)', out)[-1]
    options = '--gt', sample_set / 'annotations/mpii_gt_val.mat', '--metainfo', sample_set / 'few.py'
    out = run('-m', 'hg_plugin', 'eval_pckh', sample_set / 'pred.mat', *options)
    assert out.splitlines()[-1].split()[1:] == row.split(), out
    image, out_dir = min((sample_set / 'images').iterdir()), tmp_path / 'out'
    options = '--whole-image', '--heatmaps', '--out-dir', out_dir
    run('tools/infer.py', path, checkpoint, image, *options)
    (person,) = json.loads((out_dir / f'predictions/{image.stem}.json').read_text())['persons']
    assert np.shape(person['keypoints']) == (count, 2)
    assert (out_dir / f'visualizations/{image.stem}.jpg').exists()
    out = run('-m', 'hg_plugin', 'check', path, '--out', tmp_path / 'check.json')
    assert not [f for f in json.loads((tmp_path / 'check.json').read_text())['findings'] if f['bad']], out
