import contextlib
from pathlib import Path

import pytest
from mmengine.config import Config

from hg_plugin.training.config_check import check_config
from hg_plugin.utils.errors import InputError

CONFIGS = Path(__file__).parents[2] / 'configs'
TRAIN, VAL = 'train_dataloader.dataset', 'val_dataloader.dataset'


def read(name='hg_2stack_mpii.py'):
    return Config.fromfile(CONFIGS / name)


def check(options):
    """Checks configs/hg_2stack_mpii.py with other settings, by dotted place."""
    cfg = read()
    for place, value in options.items():
        if place == 'val_evaluator':
            cfg.val_evaluator = value
        else:
            cfg.merge_from_dict({place: value})
    check_config(cfg)


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')), ids=lambda path: path.stem)
def test_the_configs_pass(path):
    check_config(Config.fromfile(path))


# MMPose's own pipeline
STOCK = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='RandomFlip'),
    dict(type='TopdownAffine', input_size=[256, 256]),
    dict(type='Albumentation', transforms=[dict(type='Blur')]),
    dict(type='GenerateTarget', encoder=dict(type='MSRAHeatmap', sigma=2)),
    dict(type='PackPoseInputs'),
]


@pytest.mark.parametrize(
    'options',
    [
        {f'{TRAIN}.pipeline': STOCK, 'model.data_preprocessor.encoder': None},
        {'val_evaluator.prefix': 'mpii', 'default_hooks.checkpoint.save_best': ['mpii/Mean', 'auto']},
        {'model.backbone.type': 'mmdet.ResNet', 'custom_hooks': [dict(type='my.module.Hook')]},
        {'val_dataloader': None, 'val_evaluator': None, 'train_cfg.val_interval': 0},
        {'model.backbone': 3, 'optim_wrapper': 3, 'custom_hooks': None},  # MMEngine says what is wrong
    ],
)
def test_what_mmpose_can_run_or_tells_itself_passes(options):
    check(options)


BEST = 'default_hooks.checkpoint.save_best'
PCK = dict(type='PCKAccuracy', norm_item='bbox')
PLATEAU = dict(type='ReduceOnPlateauLR', monitor='PCKh', rule='greater')
STOPPING = dict(type='EarlyStoppingHook', monitor='loss', rule='less')


@pytest.mark.parametrize(
    'place, value, word',
    [
        ('model.backbone.type', 'StackedHourglas', "'StackedHourglass'"),
        (f'{VAL}.pipeline.0.type', 'GetBBoxCenterScal', "'GetBBoxCenterScale'"),
        ('custom_hooks.0.type', 'SyncBufferHook', "'SyncBuffersHook'"),
        ('val_evaluator.type', 'MPIIPCK', "'MPIIPCKh'"),
        ('optim_wrapper.optimizer.type', 'Adamm', "'Adam'"),
        ('optim_wrapper.type', 'Mixed', 'custom_imports'),
        # a metric that is waited for and never computed
        (BEST, ['Mean', 'PCK'], "'PCK', but val_evaluator computes AUC, .* Mean"),
        ('param_scheduler', [PLATEAU], "param_scheduler.0.monitor is 'PCKh'"),
        ('custom_hooks', [STOPPING], "custom_hooks.0.monitor is .*'loss'"),
        ('val_evaluator', PCK, "save_best is .*'Mean'.*computes PCK"),
    ],
)
def test_mistakes(place, value, word):
    with pytest.raises(InputError, match=word):
        check({place: value})


@pytest.mark.parametrize('place, value', [('type', 'MPIIDataset'), ('pipeline.0.type', 'GetBBox')])
def test_wrapped_datasets_are_checked(place, value):
    cfg = read()
    repeated = dict(type='RepeatDataset', times=2, dataset=cfg.val_dataloader.dataset)
    metainfo = dict(from_file='configs/_base_/datasets/mpii.py')
    cfg.val_dataloader.dataset = dict(type='CombinedDataset', metainfo=metainfo, datasets=[repeated])
    check_config(cfg)
    cfg.merge_from_dict({f'{VAL}.datasets.0.dataset.{place}': value})
    with pytest.raises(InputError, match=f'{VAL}.datasets.0.dataset.{place} is'):
        check_config(cfg)


@pytest.mark.parametrize('old', [False, True])
def test_a_torch_that_counts_batches_twice_is_refused(monkeypatch, old):
    monkeypatch.setattr('hg_plugin.training.config_check.torch_before', lambda version: old)
    check({'compile': True})
    with pytest.raises(InputError, match='torch 2.9') if old else contextlib.nullcontext():
        check({'compile': True, 'model.backbone.with_cp': True})


@pytest.mark.parametrize(
    'line, message',
    [
        ("codec = dict(type='UDPHeatmap')", 'sets codec, .*set model.codec'),
        ("data_root = 'data/other/'", "sets data_root to 'data/other/'"),
    ],
)
def test_a_variable_that_only_the_base_has_read(tmp_path, line, message):
    (tmp_path / 'child.py').write_text(f"_base_ = ['{CONFIGS}/hg_2stack_mpii.py']\n{line}")
    with pytest.raises(InputError, match=message):
        check_config(Config.fromfile(tmp_path / 'child.py'))


def test_a_config_that_a_run_has_written_passes(tmp_path):
    cfg = read()
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = 'elsewhere'
    cfg.dump(tmp_path / 'config.py')
    check_config(Config.fromfile(tmp_path / 'config.py'))
