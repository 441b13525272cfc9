"""Refuse pipelines whose transforms do not fit each other or the model, before anything is trained or tested.

MMPose's transforms hand a dict to each other and take what they find in it, so that a wrong order trains on
wrong keypoints in silence. What is checked are the transforms and codecs that were built, inside wrapped
datasets too, and not the config, which may name them by classes, by words, or not at all.
"""

from collections.abc import Iterator, Sequence

from mmcv.transforms import LoadImageFromFile
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpose.codecs import MSRAHeatmap, UDPHeatmap
from mmpose.datasets import transforms as mmpose_transforms
from torch import nn

from hg_plugin.datasets import PackKeypoints, RandomNegative, RandomOcclusion, TopdownCrop
from hg_plugin.datasets.walk import wrapped
from hg_plugin.evaluation import MPIIPCKh
from hg_plugin.utils.errors import InputError

from .data_check import EMPTY, why_empty


def _mmposes(*names: str) -> tuple[type, ...]:
    return tuple(getattr(mmpose_transforms, name) for name in names)


CROPS: tuple = (TopdownCrop, *_mmposes('TopdownAffine'))
TARGETS = _mmposes('GenerateTarget')
PACKS = (PackKeypoints, *_mmposes('PackPoseInputs'))
# what decides about the crop, or changes keypoints that are not transformed yet
BEFORE_CROP = (
    LoadImageFromFile,
    RandomNegative,
    *_mmposes('GetBBoxCenterScale', 'RandomFlip', 'RandomHalfBody', 'RandomBBoxTransform'),
    *_mmposes('KeypointConverter', 'SingleHandConverter'),
)
NEED_IMAGE: tuple = (
    RandomOcclusion,
    *_mmposes('TopdownAffine', 'Albumentation', 'PhotometricDistortion', 'YOLOXHSVRandomAug'),
)
IMAGES = (LoadImageFromFile, TopdownCrop)
# what albumentations also applies to keypoints, but leaves where they are
KEEP_POSITIONS = {
    *('NoOp', 'Lambda', 'CoarseDropout', 'ConstrainedCoarseDropout', 'Erasing', 'GridDropout', 'MaskDropout'),
    *('PixelDropout', 'XYMasking', 'TimeMasking', 'FrequencyMasking'),
}
CODEC_SETTINGS = ('input_size', 'heatmap_size', 'heatmap_type')


def check_pipelines(runner: Runner, *phases: str) -> None:
    """Check the pipelines of a runner's datasets, which are built for it.

    Args:
        runner: A runner that has not run yet.
        phases: 'train', 'val' and 'test'. Those that the config does not have are left out.

    Raises:
        InputError: A transform comes where it has no effect or a wrong one; something is missing; or the
            input size, the codec, ``use_udp`` or the number of keypoints differs from the head's.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    for phase in phases:
        try:
            loop = getattr(runner, f'{phase}_loop')
        except ValueError as error:
            if EMPTY in str(error):
                why = why_empty(runner.cfg[f'{phase}_dataloader'])
                raise InputError(f'{phase}_dataloader: {why}') from error
            raise
        metrics = getattr(getattr(loop, 'evaluator', None), 'metrics', ())
        loader = getattr(loop, 'dataloader', None)  # None: the config has no such phase
        for dataset, steps in paths(getattr(loader, 'dataset', None)):
            for problem in (
                *wrong_order(steps),
                *disagreements(steps, dataset, model),
                *missing_truth(dataset, metrics),
            ):
                raise InputError(f'{phase}_dataloader: {problem}')


def paths(dataset, after: Sequence = ()) -> Iterator[tuple[object, list]]:
    """Every innermost dataset, with the transforms that a sample goes through, in order.

    Args:
        dataset: Any dataset, or a wrapper of one or several.
        after: The transforms of its wrappers.
    """
    steps = [*getattr(getattr(dataset, 'pipeline', None), 'transforms', ()), *after]
    for each in wrapped(dataset):
        yield from paths(each, steps)
    if not wrapped(dataset) and steps:
        yield dataset, steps


def wrong_order(steps: Sequence) -> Iterator[str]:
    """What is wrong with a sequence of transforms, whatever the model. Those of others may do anything."""
    known = all(type(step).__module__.split('.')[0] in ('mmpose', 'mmcv', 'hg_plugin') for step in steps)
    names = [type(step).__name__ for step in steps]
    crop = next((index for index, step in enumerate(steps) if isinstance(step, CROPS)), None)
    for index, (step, name) in enumerate(zip(steps, names)):
        if crop is not None and index > crop and isinstance(step, CROPS):
            yield f'{name} comes after {names[crop]}, and would crop again; leave one of them out.'
        if crop is not None and index > crop and isinstance(step, BEFORE_CROP):
            yield f'{name} comes after {names[crop]}, too late for the crop and its keypoints; put it before.'
        if crop is not None and index < crop and isinstance(step, TARGETS):
            yield f'{name} comes before {names[crop]}, and would draw keypoints of the image; put it after.'
        if isinstance(step, PACKS) and index + 1 < len(steps):
            yield f'{names[index + 1]} comes after {name}; put {name} last.'
        for mover in moving(step) if crop is not None and index > crop else ():
            yield (
                f'{mover} of albumentations in {name} comes after {names[crop]}, and moves pixels without '
                f'their keypoints; leave that to {names[crop]}.'
            )
        if isinstance(step, NEED_IMAGE) and known and not any(isinstance(s, IMAGES) for s in steps[:index]):
            advice = 'LoadImage before it' if isinstance(step, CROPS) else 'it after TopdownCrop'
            yield f'{name} comes before there is an image; put {advice}.'
    if crop is None and known and isinstance(steps[-1], PACKS):
        yield f'{names[-1]} packs an image that is not cropped; put TopdownCrop before it.'


def moving(step) -> Iterator[str]:
    """Transforms of albumentations that move pixels, in MMPose's ``Albumentation`` and whatever wraps it."""
    bases = {base.__name__ for base in type(step).__mro__}
    if 'DualTransform' in bases and type(step).__name__ not in KEEP_POSITIONS:
        yield type(step).__name__
    inner = getattr(step, 'aug', getattr(step, 'transforms', ()))  # of MMPose; of MMCV and albumentations
    for each in inner if isinstance(inner, (list, tuple)) else [inner]:
        if not isinstance(each, (str, dict)):
            yield from moving(each)


def missing_truth(dataset, metrics: Sequence) -> Iterator[str]:
    """What metrics need of a dataset in MPII's layout."""
    if any(isinstance(metric, MPIIPCKh) for metric in metrics) and not getattr(dataset, 'headbox_file', True):
        yield f'{dataset.ann_file} has no headbox_file, which MPIIPCKh needs; set it to its mpii_gt_*.mat.'


def disagreements(steps: Sequence, dataset, model: nn.Module) -> Iterator[str]:
    """Settings of transforms and of the data preprocessor that differ from those of the model's head."""
    decoder = getattr(getattr(model, 'head', None), 'decoder', None)
    if decoder is None:
        return
    codecs = {'data_preprocessor.encoder': getattr(model.data_preprocessor, 'encoder', None)}
    pairs = []
    for step in steps:
        name = type(step).__name__
        codecs[f'{name}.encoder'] = getattr(step, 'encoder', None)
        if isinstance(step, CROPS):
            pairs.append((f'{name}.input_size', step.input_size, getattr(decoder, 'input_size', None)))
            if type(decoder) in (MSRAHeatmap, UDPHeatmap):
                pairs.append((f'{name}.use_udp', bool(step.use_udp), type(decoder) is UDPHeatmap))
    for name, codec in codecs.items():
        if codec is not None and not isinstance(codec, list):
            pairs.append((f'{name}.type', type(codec).__name__, type(decoder).__name__))
            for key in CODEC_SETTINGS:
                pairs.append((f'{name}.{key}', getattr(codec, key, None), getattr(decoder, key, None)))
    for place, value, wanted in pairs:
        value, wanted = (tuple(v) if isinstance(v, (list, tuple)) else v for v in (value, wanted))
        if value != wanted and None not in (value, wanted):
            yield f'{place} is {value}, but the codec of model.head needs {wanted}; make them agree.'
    if any(isinstance(step, PackKeypoints) for step in steps) and codecs['data_preprocessor.encoder'] is None:
        yield "PackKeypoints needs model.data_preprocessor=dict(type='HeatmapDataPreprocessor') and a codec."
    keypoints = (getattr(dataset, 'metainfo', None) or {}).get('num_keypoints')
    for step in steps:  # which may change it
        keypoints = getattr(step, 'num_keypoints', keypoints)
    if keypoints and type(decoder) in (MSRAHeatmap, UDPHeatmap):
        # a codec of offsets has three heatmaps a keypoint
        heatmaps = keypoints * (3 if getattr(decoder, 'heatmap_type', None) == 'combined' else 1)
        if heatmaps != model.head.out_channels:
            yield (
                f'the {keypoints} keypoints of the dataset need {heatmaps} heatmaps, but '
                f'model.head.out_channels is {model.head.out_channels}; make them agree.'
            )
