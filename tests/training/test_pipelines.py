import copy
from pathlib import Path

import pytest
from mmengine.config import Config

from hg_plugin.training.pipelines import check_pipelines
from hg_plugin.utils.errors import InputError

ROOT = Path(__file__).parents[2]
BOX, MIRROR, PERSON = (
    dict(type=name) for name in ('GetBBoxCenterScale', 'RandomMirror', 'RandomPersonTransform')
)
LOAD, WARP = (dict(type=name, input_size=(256, 256)) for name in ('LoadReducedImage', 'TopdownWarp'))
IMAGE, FLIP, KEYPOINTS, SAMPLE = (
    dict(type=name) for name in ('LoadImage', 'RandomFlip', 'PackKeypoints', 'PackPoseInputs')
)
AFFINE, TARGET = dict(type='TopdownAffine', input_size=(256, 256)), dict(type='GenerateTarget')


def check(pipeline, **model):
    cfg = Config.fromfile(ROOT / 'configs/hg_2stack_mpii.py')
    cfg.train_dataloader.dataset.pipeline = copy.deepcopy(pipeline)
    cfg.merge_from_dict(dict(model=model))
    check_pipelines(cfg)


@pytest.mark.parametrize('path', sorted((ROOT / 'configs').glob('*.py')), ids=lambda path: path.stem)
def test_the_configs_pass(path):
    check_pipelines(Config.fromfile(path))


@pytest.mark.parametrize(
    'pipeline',
    [
        [IMAGE, BOX, FLIP, dict(type='RandomBBoxTransform'), AFFINE, TARGET, SAMPLE],
        [BOX, IMAGE, MIRROR, PERSON, WARP, KEYPOINTS],
        [BOX, LOAD, PERSON, MIRROR, WARP, TARGET, SAMPLE],
        [BOX, dict(type='RandomHalfBody'), LOAD, WARP, dict(type='Albumentation'), KEYPOINTS],
    ],
)
def test_mixtures_that_work_pass(pipeline):
    check(pipeline)


@pytest.mark.parametrize(
    'pipeline, message',
    [
        ([BOX, LOAD, PERSON, MIRROR, AFFINE, KEYPOINTS], 'LoadReducedImage needs TopdownWarp behind it'),
        ([BOX, IMAGE, PERSON, MIRROR, AFFINE, KEYPOINTS], 'RandomMirror needs TopdownWarp behind it'),
        ([LOAD, BOX, WARP, KEYPOINTS], 'LoadReducedImage needs GetBBoxCenterScale before it'),
        ([MIRROR, BOX, IMAGE, WARP, KEYPOINTS], 'RandomMirror needs GetBBoxCenterScale before it'),
        ([BOX, WARP, KEYPOINTS], 'TopdownWarp needs LoadImage or LoadReducedImage before it'),
        ([BOX, LOAD, KEYPOINTS], 'LoadReducedImage needs TopdownWarp behind it'),
        ([BOX, LOAD, WARP, MIRROR, KEYPOINTS], 'RandomMirror needs TopdownWarp behind it'),
        (
            [BOX, LOAD, WARP, PERSON, KEYPOINTS],
            'RandomPersonTransform needs TopdownAffine or TopdownWarp behind it',
        ),
        ([BOX, IMAGE, WARP, FLIP, KEYPOINTS], 'RandomFlip needs'),
        ([BOX, IMAGE, MIRROR, FLIP, WARP, KEYPOINTS], 'RandomMirror and RandomFlip exclude each other'),
        ([BOX, LOAD, FLIP, WARP, KEYPOINTS], 'LoadReducedImage and RandomFlip exclude'),
        ([BOX, LOAD, MIRROR, MIRROR, WARP, KEYPOINTS], 'RandomMirror stands there 2 times'),
        ([BOX, LOAD, WARP, WARP, KEYPOINTS], 'TopdownWarp stands there 2 times'),
        ([BOX, IMAGE, WARP, AFFINE, KEYPOINTS], 'TopdownAffine and TopdownWarp exclude'),
        ([BOX, LOAD, TARGET, WARP, SAMPLE], 'GenerateTarget needs TopdownAffine or TopdownWarp before it'),
        ([BOX, LOAD, WARP, TARGET, KEYPOINTS], 'GenerateTarget needs PackPoseInputs behind it'),
        ([BOX, LOAD, WARP, SAMPLE], 'PackPoseInputs needs GenerateTarget before it'),
        (
            [BOX, LOAD, WARP],
            'the last transform should be PackPoseInputs or PackKeypoints, but is TopdownWarp',
        ),
        (
            [BOX, LOAD, dict(WARP, use_udp=True), KEYPOINTS],
            'use_udp=True, but model.head.decoder is MSRAHeatmap',
        ),
    ],
)
def test_what_would_train_on_wrong_pictures_is_refused(pipeline, message):
    with pytest.raises(InputError, match=f'^train_dataloader.dataset.pipeline: .*{message}'):
        check(pipeline)


def test_the_model_must_draw_what_the_pipeline_leaves_to_it():
    pipeline = [BOX, LOAD, WARP, KEYPOINTS]
    with pytest.raises(InputError, match='needs model.data_preprocessor of the type HeatmapDataPreprocessor'):
        check(pipeline, data_preprocessor=dict(type='PoseDataPreprocessor'))
    with pytest.raises(InputError, match='with an encoder'):
        check(pipeline, data_preprocessor=dict(encoder=dict(_delete_=True)))
    with pytest.raises(InputError, match='encoder, UDPHeatmap, and read by model.head.decoder, MSRAHeatmap'):
        check(pipeline, data_preprocessor=dict(encoder=dict(type='UDPHeatmap')))
