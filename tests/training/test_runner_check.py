"""Mistakes in what a runner has built from a config."""

import contextlib
import itertools
import json
import logging
import re
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.registry import MODELS
from mmpose.registry import DATASETS, KEYPOINT_CODECS, METRICS
from torch.utils.data import DataLoader

from hg_plugin.datasets import MPIIPoseDataset, SeededInfiniteSampler
from hg_plugin.models import StackedHourglass
from hg_plugin.training import runner_check
from hg_plugin.utils.errors import InputError

SIZE = (64, 64)
BOX, KEYPOINTS, SAMPLE = (dict(type=t) for t in ('GetBBoxCenterScale', 'PackKeypoints', 'PackPoseInputs'))
CROP, AFFINE = (dict(type=t, input_size=SIZE) for t in ('TopdownCrop', 'TopdownAffine'))
IMAGE, FLIP, COLORS = (dict(type=t) for t in ('LoadImage', 'RandomFlip', 'PhotometricDistortion'))
CODEC = dict(type='MSRAHeatmap', input_size=SIZE, heatmap_size=(16, 16), sigma=2)
UDP = {**CODEC, 'type': 'UDPHeatmap'}
LARGE = {**CODEC, 'heatmap_size': (32, 32)}
TARGET = dict(type='GenerateTarget', encoder=CODEC)
# read once
MPII = Config.fromfile(MPIIPoseDataset.METAINFO['from_file']).to_dict()['dataset_info']


def converter(count=16):
    mapping = [(k % 16, k) for k in range(count)]
    return dict(type='KeypointConverter', num_keypoints=count, mapping=mapping)


def combined(dataset, number):
    """Wraps a dataset that has the first ``number`` transforms, and the wrapper the others."""
    steps = dataset['pipeline']
    inner = {**dataset, 'pipeline': steps[:number]}
    return dict(type='CombinedDataset', metainfo=MPII, pipeline=steps[number:], datasets=[inner])


WRAPPERS = dict(
    plain=lambda dataset: dataset,
    repeat=lambda dataset: dict(type='RepeatDataset', times=2, dataset=dataset),
    nested=lambda dataset: WRAPPERS['repeat'](dict(type='ConcatDataset', datasets=[dataset, dataset])),
    combined=lambda dataset: combined(dataset, 0),
    split=lambda dataset: combined(dataset, 1),
)


@pytest.fixture
def check(real_data):
    """Checks a pipeline in a phase, with the codecs of the head and of the data preprocessor."""

    def check(pipeline, wrap='plain', phase='val', decoder=CODEC, encoder=CODEC, metrics=(), **settings):
        dataset = dict(
            type='MPIIPoseDataset',
            data_root=str(real_data('mpii_sample')),
            ann_file='annotations/mpii_val.json',
            metainfo=MPII,
            serialize_data=False,  # which collects garbage
            pipeline=pipeline,
            **settings,
        )
        dataset = DATASETS.build(Config(dict(d=WRAPPERS[wrap](dataset))).d)
        head = SimpleNamespace(decoder=KEYPOINT_CODECS.build(decoder), out_channels=16)
        encoder = encoder and KEYPOINT_CODECS.build(encoder)
        loops = dict.fromkeys(('train_loop', 'val_loop', 'test_loop'))
        loops[f'{phase}_loop'] = SimpleNamespace(
            dataloader=SimpleNamespace(dataset=dataset), evaluator=SimpleNamespace(metrics=metrics)
        )
        model = SimpleNamespace(head=head, data_preprocessor=SimpleNamespace(encoder=encoder))
        runner = SimpleNamespace(model=model, hooks=[], cfg=Config(), **loops)
        runner_check.check_runner(runner, 'train', 'val', 'test')
        return dataset

    return check


WRONG = [
    ([IMAGE, BOX, AFFINE, FLIP, TARGET, SAMPLE], 'RandomFlip comes after TopdownAffine'),
    ([IMAGE, BOX, FLIP, TARGET, AFFINE, SAMPLE], 'GenerateTarget comes before TopdownAffine'),
    ([BOX, CROP, dict(type='RandomHalfBody'), KEYPOINTS], 'RandomHalfBody comes after TopdownCrop'),
    ([BOX, CROP, converter(), KEYPOINTS], 'KeypointConverter comes after TopdownCrop'),
    ([BOX, dict(CROP, use_udp=True), KEYPOINTS], 'TopdownCrop.use_udp is True'),
    ([BOX, dict(CROP, input_size=(96, 64)), KEYPOINTS], r'input_size is \(96, 64\), .*\(64, 64\)'),
    ([IMAGE, BOX, AFFINE, dict(TARGET, encoder=UDP), SAMPLE], 'encoder.type is UDPHeatmap'),
    ([BOX, CROP, dict(TARGET, encoder=LARGE), SAMPLE], r'encoder.heatmap_size is \(32, 32\)'),
    ([converter(17), BOX, CROP, KEYPOINTS], '17 keypoints'),
]
RIGHT = [
    ([BOX, CROP, COLORS, KEYPOINTS], None),
    ([IMAGE, BOX, FLIP, dict(type='RandomBBoxTransform'), AFFINE, COLORS, TARGET, SAMPLE], None),
    ([converter(), BOX, CROP, KEYPOINTS], None),
    ([], None),
]


def wrapped(cases):
    """Each case in one wrapper, in turn, and the first in all of them."""
    first = [(wrap, *cases[0]) for wrap in WRAPPERS]
    return [*first, *((wrap, *case) for wrap, case in zip(itertools.cycle(WRAPPERS), cases[1:]))]


@pytest.mark.parametrize('wrap, pipeline, message', wrapped(WRONG) + wrapped(RIGHT))
def test_a_wrong_pipeline_is_refused_inside_wrappers_and_a_right_one_passes(check, wrap, pipeline, message):
    refused = pytest.raises(InputError, match=f'^val_dataloader: .*{message}')
    with refused if message else contextlib.nullcontext():
        check(pipeline, wrap)


@pytest.mark.parametrize('phase', ['train', 'val', 'test'])
def test_udp_needs_a_crop_of_udp_in_every_phase(check, phase):
    check([BOX, dict(CROP, use_udp=True), SAMPLE], phase=phase, decoder=UDP, encoder=UDP)
    with pytest.raises(InputError, match=f'^{phase}_dataloader: TopdownCrop.use_udp is False'):
        check([BOX, CROP, SAMPLE], phase=phase, decoder=UDP, encoder=UDP)
    with pytest.raises(InputError, match='data_preprocessor.encoder.type is MSRAHeatmap'):
        check([BOX, dict(CROP, use_udp=True), SAMPLE], phase=phase, decoder=UDP)


def test_something_must_draw_the_targets(check):
    with pytest.raises(InputError, match='PackKeypoints needs .*codec'):
        check([BOX, CROP, KEYPOINTS], encoder=None)
    check([IMAGE, BOX, AFFINE, TARGET, SAMPLE], encoder=None)


class DualTransform:
    """As albumentations' class of this name."""


Rotate, GridDropout = (type(name, (DualTransform,), {}) for name in ('Rotate', 'GridDropout'))


@pytest.mark.parametrize(
    'step, moves',
    [
        (SimpleNamespace(aug=[Rotate()], transforms=[dict(type='Rotate')]), True),
        (SimpleNamespace(transforms=[SimpleNamespace(aug=SimpleNamespace(transforms=[Rotate()]))]), True),
        (SimpleNamespace(aug=[GridDropout(), SimpleNamespace()]), False),
        (len, False),
    ],
)
def test_albumentations_that_move_pixels_are_found_in_every_wrapper(check, step, moves):
    assert [*runner_check.moving(step)] == ['Rotate'] * moves
    # and refused after the crop
    box, crop, pack = check([BOX, CROP, KEYPOINTS]).pipeline.transforms
    assert [*runner_check.wrong_order([box, step, crop, pack])] == []
    assert bool([*runner_check.wrong_order([box, crop, step, pack])]) == moves


def test_classes_that_inherit_the_packages_are_checked(check):
    box, crop, pack = check([BOX, CROP, KEYPOINTS]).pipeline.transforms
    for step in (box, crop):
        step.__class__ = type('Own', (type(step),), {})
    assert [*runner_check.wrong_order([crop, box, pack])]
    assert not [*runner_check.wrong_order([box, crop, pack])]


@pytest.mark.parametrize('wrap', ['plain', 'repeat'])
def test_pckh_needs_head_boxes(check, wrap):
    steps, metrics = [BOX, CROP, SAMPLE], [METRICS.build(dict(type='MPIIPCKh'))]
    with pytest.raises(InputError, match='^val_dataloader: .*headbox_file'):
        check(steps, wrap, metrics=metrics)
    check(steps, wrap)
    check(steps, wrap, metrics=metrics, headbox_file='annotations/mpii_gt_val.mat')


@pytest.mark.parametrize('dataset', ['MPIIPoseDataset', 'MpiiDataset'])
@pytest.mark.parametrize('metric', ['MPIIPCKh', 'MpiiPCKAccuracy'])
def test_metrics_that_count_pixels_unlike_the_dataset_are_refused(dataset, metric):
    dataset = DATASETS.get(dataset).__new__(DATASETS.get(dataset))
    dataset.headbox_file = 'gt.mat'
    found = [*runner_check.unfit_metrics(dataset, [METRICS.build(dict(type=metric))])]
    fits = metric == 'MPIIPCKh' if isinstance(dataset, MPIIPoseDataset) else metric == 'MpiiPCKAccuracy'
    assert bool(found) != fits and all('pixel off' in problem for problem in found)


class OwnMetric:
    """May compute anything."""


PCKH, EPE, PCK = dict(type='MPIIPCKh'), dict(type='EPE'), dict(type='PCKAccuracy', norm_item='bbox')
LEG = dict(type='MPIIPCKh', groups=dict(Leg=[1]))


def build(metrics):
    return [metric if isinstance(metric, OwnMetric) else METRICS.build(metric) for metric in metrics]


def monitors(metrics, *hooks, **cfg):
    """What is wrong with the monitors of hooks and schedulers."""
    return [*runner_check.wrong_monitors(SimpleNamespace(hooks=hooks, cfg=Config(cfg)), build(metrics))]


@pytest.mark.parametrize(
    'metrics, name, rule, word',
    [
        ([PCKH], 'Mean', 'greater', None),
        ([PCKH], 'stage0/Mean', 'greater', None),
        ([PCKH], 'Mean', 'less', "rule='greater'"),
        ([PCKH], 'PCK', 'greater', 'computes .* Mean, '),
        ([dict(type='MPIIPCKh', prefix='mpii')], 'mpii/Knee', 'greater', None),
        ([LEG], 'Leg', 'greater', None),
        ([LEG], 'Knee', 'greater', 'computes Leg, Mean, AUC'),
        ([PCK], 'Mean', 'greater', "'Mean', but val_evaluator computes PCK"),
        ([PCK, OwnMetric()], 'Mean', 'greater', None),
        ([EPE], 'EPE', 'less', None),
        ([EPE], 'EPE', 'greater', "rule='less'"),
        ([EPE, PCKH], 'Mean', 'greater', None),
        ([dict(type='NME', norm_mode='keypoint_distance')], 'own/NME', 'greater', "rule='less'"),
        ([OwnMetric()], 'EPE', 'greater', "rule='less'"),
        ([], 'Mean', 'greater', None),
    ],
)
@pytest.mark.parametrize('place', ['save_best', 'EarlyStoppingHook', 'param_scheduler.0.monitor'])
def test_a_monitor_is_of_a_metric_that_is_computed_and_not_the_worst(metrics, name, rule, word, place):
    if place == 'save_best':
        found = monitors(metrics, CheckpointHook(save_best=name, rule=rule))
    elif place == 'EarlyStoppingHook':
        found = monitors(metrics, EarlyStoppingHook(monitor=name, rule=rule))
    else:
        scheduler = dict(type='ReduceOnPlateauLR', monitor=name, rule=rule)
        found = monitors(metrics, param_scheduler=[scheduler])
    assert bool(found) == bool(word) and all(re.search(word, each) and place in each for each in found)


@pytest.mark.parametrize('best, rules', [('auto', ['greater']), (['EPE', 'Mean'], ['less', 'less'])])
def test_rules_of_the_first_metric_and_of_several(best, rules):
    assert len(monitors([EPE, PCKH], CheckpointHook(save_best=best, rule=rules))) == 1


def test_a_plateau_is_of_what_should_be_less_unless_told():
    (found,) = monitors([PCKH], param_scheduler=[dict(type='ReduceOnPlateauLR', monitor='Mean')])
    assert "rule='greater'" in found


@pytest.mark.parametrize(
    'metrics, name',
    [
        ([PCKH, dict(type='AUC')], 'AUC'),
        ([LEG, dict(type='AUC')], 'AUC'),
        ([dict(PCK, thr=0.1), dict(PCK, thr=0.2)], 'PCK'),
        ([dict(EPE, prefix='a'), dict(EPE, prefix='a')], 'a/EPE'),
        ([PCKH, dict(type='AUC', prefix='mmpose')], None),
        ([PCK, dict(PCK, norm_item='torso')], None),
        ([OwnMetric(), OwnMetric()], None),
    ],
)
def test_two_metrics_of_one_name_are_told_with_the_prefix_to_give(metrics, name):
    found = [*runner_check.clashes(build(metrics))]
    assert bool(found) == bool(name) and all(re.search(f'compute {name};.*prefix', each) for each in found)


@pytest.fixture
def train(caplog):
    """Checks a training on so many images, and returns what it warns of."""

    def train(images=40, epochs=20, schedule=(), keys=(), sampler=DefaultSampler, **loader):
        class Data(list):  # which a sampler can give a method
            pass

        data = Data(range(images))
        loader = DataLoader(data, sampler=sampler(data, seed=0), **loader)
        settings = dict(paramwise_cfg=dict(custom_keys={key: dict(lr_mult=0.1) for key in keys}))
        runner = SimpleNamespace(
            train_loop=SimpleNamespace(dataloader=loader, max_epochs=epochs, max_iters=epochs * len(loader)),
            model=StackedHourglass(channels=4, depth=1),
            logger=logging.getLogger(),
            cfg=Config(dict(param_scheduler=schedule, optim_wrapper=settings)),
        )
        runner_check.check_runner(runner, 'train')
        return caplog.text

    return train


def test_an_epoch_without_a_step_is_refused(train):
    with pytest.raises(InputError, match='no step.* 40 images.* 64'):
        train(batch_size=64, drop_last=True)
    train(batch_size=64)
    train(batch_size=64, drop_last=True, sampler=SeededInfiniteSampler)


@pytest.mark.parametrize('batch_size', [1, 3, 13])
def test_a_batch_of_one_is_refused_where_batch_norm_has_one_value(request, batch_size):
    def check(images=40, size=64, **options):
        model = Config.fromfile(request.config.rootpath / 'configs/hg_1stack_mpii.py').model
        model.backbone.update(channels=4, depth=4, stem_channels=(4, 4, 4, 4))
        model.codec.update(input_size=(size, size), heatmap_size=(size // 4, size // 4))
        model = MODELS.build(model)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        loader = DataLoader(range(images), batch_size=batch_size, **options)
        found = [*runner_check.wrong_batches(loader, model)]
        torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
        return found

    (problem,) = check()
    assert 'batch of one' in problem
    assert not check(size=128)  # 2x2 values
    if batch_size > 1:
        assert not check(drop_last=True) and not check(images=41)


WARM_UP = dict(type='LinearLR', start_factor=0.001, begin=0, end=500, by_epoch=False)
STEPS = dict(type='MultiStepLR', end=210)


@pytest.mark.parametrize(
    'schedule, words',
    [
        ([WARM_UP], '500 iterations, and the training has 40'),
        ([dict(WARM_UP, end=40)], ''),
        ([dict(STEPS, milestones=[10, 20, 170])], '170 epochs, and the training has 20'),
        ([dict(STEPS, milestones=[10, 19])], ''),
        ([dict(type='CosineAnnealingLR', begin=0, end=30, T_max=30)], 'takes 30 epochs'),
        ([dict(type='ReduceOnPlateauLR', monitor='Mean', rule='greater')], ''),
        (dict(optimizer=[WARM_UP]), '500 iterations'),
    ],
)
def test_schedules_that_outlast_the_training_are_warned_of(train, schedule, words):
    warned = train(images=40, epochs=20, batch_size=20, schedule=schedule)
    assert words in warned and bool(warned) == bool(words)


def test_custom_keys_without_a_parameter_are_warned_of(train):
    assert not train(keys=['scores', 'hourglasses.0'])
    assert "'scorse'" in train(keys=['scorse'])


def test_a_coco_file_without_a_usable_annotation_says_why(tmp_path):
    good = dict(image_id=1, category_id=1, bbox=[0, 0, 9, 9], keypoints=[3, 3, 2] * 17, num_keypoints=17)
    defects = dict(num_keypoints=0), dict(iscrowd=1), dict(bbox=[0, 0, 0, 9]), *[dict(image_id=9)] * 2
    annotations = [{**good, **defect, 'id': index} for index, defect in enumerate(defects)]
    image = dict(id=1, file_name='a.jpg', width=9, height=9)
    content = dict(images=[image], annotations=annotations, categories=[dict(id=1, name='person')])
    (tmp_path / 'a.json').write_text(json.dumps(content))
    loader = dict(dataset=dict(type='CocoDataset', data_root=str(tmp_path), ann_file='a.json', pipeline=[]))

    class Runner(SimpleNamespace):
        train_loop = property(lambda self: DATASETS.build(loader['dataset']))

    words = '5 annotations, 1 without keypoints, 1 of crowds, 1 without a box .*, 2 of images'
    with pytest.raises(InputError, match=f'train_dataloader: .*a.json has {words}'):
        runner_check.check_runner(Runner(model=None, cfg=Config(dict(train_dataloader=loader))), 'train')
