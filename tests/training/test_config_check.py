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
        cfg.merge_from_dict({place: value})
    check_config(cfg)


def stock(udp=False):
    """MMPose's own pipeline."""
    return [
        dict(type='LoadImage'),
        dict(type='GetBBoxCenterScale'),
        dict(type='RandomFlip'),
        dict(type='TopdownAffine', input_size=[256, 256], use_udp=udp),
        dict(type='Albumentation', transforms=[dict(type='Blur')]),
        dict(type='GenerateTarget', encoder=dict(type='UDPHeatmap' if udp else 'MSRAHeatmap', sigma=2)),
        dict(type='PackPoseInputs'),
    ]


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('*.py')), ids=lambda path: path.stem)
def test_the_configs_pass(path):
    check_config(Config.fromfile(path))


@pytest.mark.parametrize(
    'options',
    [
        {f'{TRAIN}.pipeline': stock(), 'model.data_preprocessor.encoder': None},
        {'val_evaluator.type': 'PCKAccuracy', 'default_hooks.checkpoint.save_best': 'PCK'},
        {'val_evaluator.prefix': 'mpii', 'default_hooks.checkpoint.save_best': ['mpii/Mean', 'auto']},
        {'model.backbone.type': 'mmdet.ResNet', 'custom_hooks': [dict(type='my.module.Hook')]},
        {'model.backbone.type': 'ResNet', 'model.head.in_channels': 2048, 'model.head.num_stages': 1},
        {'val_dataloader': None, 'val_evaluator': None, 'train_cfg.val_interval': 0},
        {'model.backbone': 3, 'optim_wrapper': 3, 'custom_hooks': None},  # MMEngine says what is wrong
    ],
)
def test_what_mmpose_can_run_or_tells_itself_passes(options):
    check(options)


@pytest.mark.parametrize(
    'place, value, message',
    [
        ('model.backbone.type', 'StackedHourglas', "is not registered; did you mean 'StackedHourglass'"),
        ('model.head.type', 'MultiStageHeatmap', "did you mean 'MultiStageHeatmapHead'"),
        ('model.codec.type', 'MSRAHeatmaps', "did you mean 'MSRAHeatmap'"),
        (f'{TRAIN}.type', 'MPIIDataset', "did you mean 'MPIIPoseDataset'"),
        (f'{VAL}.pipeline.0.type', 'GetBBoxCenterScal', "did you mean 'GetBBoxCenterScale'"),
        ('custom_hooks.0.type', 'SyncBufferHook', "did you mean 'SyncBuffersHook'"),
        ('default_hooks.logger.type', 'LoggersHook', "logger.type is 'LoggersHook', .* 'LoggerHook'"),
        ('val_evaluator.type', 'MPIIPCK', "did you mean 'MPIIPCKh'"),
        ('optim_wrapper.optimizer.type', 'Adamm', "did you mean 'Adam'"),
        ('optim_wrapper.type', 'Mixed', 'do custom_imports name its module'),
        ('param_scheduler.0.type', 'LinearsLR', "did you mean 'LinearLR'"),
        (
            'default_hooks.checkpoint.save_best',
            ['Mean', 'PCK'],
            "'PCK', but val_evaluator computes AUC, .* Mean",
        ),
    ],
)
def test_mistakes(place, value, message):
    with pytest.raises(InputError, match=message):
        check({place: value})


@pytest.mark.parametrize(
    'place, value, message',
    [
        ('type', 'MPIIDataset', "datasets.0.dataset.type is 'MPIIDataset', which is not registered"),
        ('pipeline.0.type', 'GetBBox', 'datasets.0.dataset.pipeline.0.type is'),
    ],
)
def test_wrapped_datasets_are_checked(place, value, message):
    cfg = read()
    cfg.val_dataloader.dataset = dict(
        type='CombinedDataset',
        metainfo=dict(from_file='configs/_base_/datasets/mpii.py'),
        datasets=[dict(type='RepeatDataset', times=2, dataset=cfg.val_dataloader.dataset)],
    )
    check_config(cfg)
    cfg.merge_from_dict({f'{VAL}.datasets.0.dataset.{place}': value})
    with pytest.raises(InputError, match=f'{VAL}.{message}'):
        check_config(cfg)


def test_a_torch_that_counts_batches_twice_is_refused(monkeypatch):
    both = {'compile': True, 'model.backbone.with_cp': True}
    monkeypatch.setattr('hg_plugin.training.config_check.torch_before', lambda version: False)
    check(both)
    monkeypatch.setattr('hg_plugin.training.config_check.torch_before', lambda version: True)
    check({'compile': True})
    with pytest.raises(InputError, match='need torch 2.9 to work together'):
        check(both)


@pytest.mark.parametrize(
    'line, message',
    [
        (
            "codec = dict(type='UDPHeatmap', input_size=(256, 256), heatmap_size=(64, 64), sigma=2)",
            'sets codec, which nothing reads; set model.codec',
        ),
        ("data_root = 'data/other/'", "sets data_root to 'data/other/', but no dataset has it"),
    ],
)
def test_a_variable_that_only_the_base_has_read(tmp_path, line, message):
    base = f"_base_ = ['{CONFIGS}/hg_2stack_mpii.py']\n"
    (tmp_path / 'child.py').write_text(base + line)
    with pytest.raises(InputError, match=message):
        check_config(Config.fromfile(tmp_path / 'child.py'))


def test_a_config_that_a_run_has_written_passes(tmp_path):
    cfg = read()
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = 'elsewhere'
    cfg.dump(tmp_path / 'config.py')
    check_config(Config.fromfile(tmp_path / 'config.py'))


@pytest.mark.parametrize(
    'options, message',
    [
        (
            {'param_scheduler': [dict(type='ReduceOnPlateauLR', monitor='PCKh', rule='greater')]},
            "param_scheduler.0.monitor is 'PCKh', but val_evaluator computes AUC, ",
        ),
        (
            {'custom_hooks': [dict(type='EarlyStoppingHook', monitor='loss', rule='less')]},
            "custom_hooks.0.monitor is .*'loss'",
        ),
        (
            {'val_evaluator': dict(type='PCKAccuracy', norm_item='bbox')},
            "save_best is .*'Mean'.*, but val_evaluator computes PCK;",
        ),
        (
            {
                'val_evaluator': [dict(type='MPIIPCKh'), dict(type='PCKAccuracy', norm_item='head')],
                'default_hooks.checkpoint.save_best': ['PCKh', 'tPCK'],
            },
            'save_best is .*tPCK',
        ),
    ],
)
def test_a_metric_that_is_waited_for_and_never_computed(options, message):
    cfg = read()
    for place, value in options.items():
        if place == 'val_evaluator':
            cfg.val_evaluator = value
        else:
            cfg.merge_from_dict({place: value})
    with pytest.raises(InputError, match=message):
        check_config(cfg)
