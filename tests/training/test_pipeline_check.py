import itertools
import json
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmpose.registry import DATASETS, KEYPOINT_CODECS

from hg_plugin.datasets import MPIIPoseDataset
from hg_plugin.evaluation import MPIIPCKh
from hg_plugin.training.pipeline_check import check_pipelines, moving, wrong_order
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
    concat=lambda dataset: dict(type='ConcatDataset', datasets=[dataset, dataset]),
    nested=lambda dataset: dict(type='RepeatDataset', times=1, dataset=WRAPPERS['concat'](dataset)),
    combined=lambda dataset: combined(dataset, 0),
    split=lambda dataset: combined(dataset, 1),
)


@pytest.fixture
def check(real_data):
    """Checks a pipeline in a phase, with the codecs of the head and of the data preprocessor."""

    def check(pipeline, wrap='plain', phase='train', decoder=CODEC, encoder=CODEC, metrics=(), **settings):
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
        check_pipelines(SimpleNamespace(model=model, **loops), 'train', 'val', 'test')
        return dataset

    return check


WRONG = [
    ([IMAGE, BOX, AFFINE, FLIP, TARGET, SAMPLE], 'RandomFlip comes after TopdownAffine'),
    ([IMAGE, BOX, FLIP, TARGET, AFFINE, SAMPLE], 'GenerateTarget comes before TopdownAffine'),
    ([BOX, CROP, dict(type='RandomHalfBody'), KEYPOINTS], 'RandomHalfBody comes after TopdownCrop'),
    ([BOX, CROP, CROP, KEYPOINTS], 'TopdownCrop comes after TopdownCrop'),
    ([BOX, CROP, converter(), KEYPOINTS], 'KeypointConverter comes after TopdownCrop'),
    ([BOX, KEYPOINTS, CROP], 'TopdownCrop comes after PackKeypoints'),
    ([IMAGE, BOX, TARGET, SAMPLE], 'PackPoseInputs packs an image that is not cropped'),
    ([BOX, COLORS, CROP, KEYPOINTS], 'PhotometricDistortion comes before there is an image'),
    ([BOX, dict(CROP, use_udp=True), KEYPOINTS], 'TopdownCrop.use_udp is True'),
    ([IMAGE, BOX, dict(AFFINE, use_udp=True), TARGET, SAMPLE], 'TopdownAffine.use_udp is True'),
    ([BOX, dict(CROP, input_size=(96, 64)), KEYPOINTS], r'input_size is \(96, 64\), .*\(64, 64\)'),
    ([IMAGE, BOX, AFFINE, dict(TARGET, encoder=UDP), SAMPLE], 'encoder.type is UDPHeatmap'),
    ([BOX, CROP, dict(TARGET, encoder=LARGE), SAMPLE], r'encoder.heatmap_size is \(32, 32\)'),
    ([converter(17), BOX, CROP, KEYPOINTS], 'the 17 keypoints .*need 17 heatmaps'),
]
RIGHT = [
    [BOX, CROP, KEYPOINTS],
    [BOX, CROP, COLORS, KEYPOINTS],
    [IMAGE, BOX, FLIP, dict(type='RandomBBoxTransform'), AFFINE, COLORS, TARGET, SAMPLE],
    [IMAGE, COLORS, BOX, CROP, TARGET, SAMPLE],
    [converter(), BOX, CROP, KEYPOINTS],
    [],
]


def wrapped(cases):
    """Each case in one wrapper, in turn, and the first in all of them."""
    first = [(wrap, cases[0]) for wrap in WRAPPERS]
    return [*first, *zip(itertools.cycle(WRAPPERS), cases[1:])]


@pytest.mark.parametrize('wrap, case', wrapped(WRONG))
def test_a_wrong_pipeline_is_refused_inside_wrappers(check, wrap, case):
    pipeline, message = case
    with pytest.raises(InputError, match=f'^train_dataloader: .*{message}'):
        check(pipeline, wrap)


@pytest.mark.parametrize('wrap, pipeline', wrapped(RIGHT))
def test_a_right_one_passes(check, wrap, pipeline):
    assert check(pipeline, wrap)


@pytest.mark.parametrize('phase', ['train', 'val', 'test'])
def test_udp_needs_a_crop_of_udp_in_every_phase(check, phase):
    check([BOX, dict(CROP, use_udp=True), SAMPLE], phase=phase, decoder=UDP, encoder=UDP)
    with pytest.raises(InputError, match=f'^{phase}_dataloader: TopdownCrop.use_udp is False'):
        check([BOX, CROP, SAMPLE], phase=phase, decoder=UDP, encoder=UDP)
    with pytest.raises(InputError, match='data_preprocessor.encoder.type is MSRAHeatmap'):
        check([BOX, dict(CROP, use_udp=True), SAMPLE], phase=phase, decoder=UDP)


def test_a_transform_of_ones_own_may_load_crop_and_draw(check):
    def own(results):
        return results

    box, crop, colors, pack = check([BOX, CROP, COLORS, KEYPOINTS]).pipeline.transforms
    assert not [*wrong_order([box, own, crop, pack])] and not [*wrong_order([own, colors, pack])]
    assert [*wrong_order([box, colors, pack])]


def test_something_must_draw_the_targets(check):
    with pytest.raises(InputError, match='PackKeypoints needs .*codec'):
        check([BOX, CROP, KEYPOINTS], encoder=None)
    check([IMAGE, BOX, AFFINE, TARGET, SAMPLE], encoder=None)


def test_a_codec_of_offsets_has_three_heatmaps_a_keypoint(check):
    offsets = dict(type='UDPHeatmap', input_size=SIZE, heatmap_size=(16, 16), heatmap_type='combined')
    with pytest.raises(InputError, match='the 16 keypoints of the dataset need 48 heatmaps'):
        check([BOX, dict(CROP, use_udp=True), SAMPLE], decoder=offsets, encoder=None)


@pytest.mark.parametrize('wrap', ['plain', 'repeat'])
def test_pckh_needs_head_boxes(check, wrap):
    steps = [BOX, CROP, SAMPLE]
    with pytest.raises(InputError, match='^val_dataloader: .*headbox_file'):
        check(steps, wrap, 'val', metrics=[MPIIPCKh()])
    check(steps, wrap, 'val')
    check(steps, wrap, 'val', metrics=[MPIIPCKh()], headbox_file='annotations/mpii_gt_val.mat')


class DualTransform:
    """As albumentations' class of this name."""


Rotate, GridDropout = (type(name, (DualTransform,), {}) for name in ('Rotate', 'GridDropout'))


OWN = SimpleNamespace(aug=[SimpleNamespace(transforms=[Rotate()])])


@pytest.mark.parametrize(
    'step, moves',
    [
        (SimpleNamespace(aug=[Rotate()], transforms=[dict(type='Rotate')]), ['Rotate']),
        (SimpleNamespace(aug=SimpleNamespace(transforms=[GridDropout(), Rotate()])), ['Rotate']),
        (SimpleNamespace(transforms=[OWN]), ['Rotate']),
        (SimpleNamespace(aug=[GridDropout(), SimpleNamespace()]), []),
        (len, []),
    ],
)
def test_albumentations_that_move_pixels_are_found_in_every_wrapper(check, step, moves):
    assert [*moving(step)] == moves
    # and refused after the crop
    box, crop, pack = check([BOX, CROP, KEYPOINTS]).pipeline.transforms
    assert [*wrong_order([box, step, crop, pack])] == []
    assert bool([*wrong_order([box, crop, step, pack])]) == bool(moves)


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(num_keypoints=0), '2 without keypoints'),
        (dict(iscrowd=1), '2 of crowds'),
        (dict(bbox=[0, 0, 0, 9]), '2 without a box'),
        (dict(image_id=9), '2 of images'),
    ],
)
def test_a_coco_file_without_a_usable_annotation_says_why(tmp_path, changes, words):
    annotation = dict(
        id=1, image_id=1, category_id=1, bbox=[0, 0, 9, 9], keypoints=[3, 3, 2] * 17, num_keypoints=17
    )
    annotations = [{**annotation, **changes}, {**annotation, **changes, 'id': 2}]
    image = dict(id=1, file_name='a.jpg', width=9, height=9)
    content = dict(images=[image], annotations=annotations, categories=[dict(id=1, name='person')])
    (tmp_path / 'a.json').write_text(json.dumps(content))
    loader = dict(dataset=dict(type='CocoDataset', data_root=str(tmp_path), ann_file='a.json', pipeline=[]))

    class Runner(SimpleNamespace):
        train_loop = property(lambda self: DATASETS.build(loader['dataset']))

    with pytest.raises(InputError, match=f'train_dataloader: .*a.json has 2 annotations, {words}'):
        check_pipelines(Runner(model=None, cfg=Config(dict(train_dataloader=loader))), 'train')
