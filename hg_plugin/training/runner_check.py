"""Refuse what was built wrong from a config, before anything is trained or tested.

MMPose's transforms hand a dict to each other and take what they find in it, so that a wrong order trains on
wrong keypoints in silence. What is checked are the transforms, codecs and metrics that were built, inside
wrapped datasets too, and not the config, which may name them by classes, by words, or not at all.
"""

from collections.abc import Iterator, Sequence

import torch
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import CheckpointHook, EarlyStoppingHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpose.codecs import MSRAHeatmap, UDPHeatmap
from torch import nn
from torch.utils.data import DataLoader

from hg_plugin.datasets.walk import wrapped
from hg_plugin.evaluation import METRIC_NAMES, joint_groups
from hg_plugin.models.checkpointing import frozen_running_stats
from hg_plugin.utils.config import DATASET, parts_of
from hg_plugin.utils.errors import InputError

from .data_check import EMPTY, why_empty

CROPS = {'TopdownCrop', 'TopdownAffine'}
# what decides about the crop, or changes keypoints that are not transformed yet
BEFORE_CROP = {
    *('LoadImage', 'RandomNegative', 'GetBBoxCenterScale', 'RandomFlip', 'RandomHalfBody'),
    *('RandomBBoxTransform', 'KeypointConverter', 'SingleHandConverter', *CROPS),
}
# what albumentations also applies to keypoints, but leaves where they are
KEEP_POSITIONS = {
    *('NoOp', 'Lambda', 'CoarseDropout', 'ConstrainedCoarseDropout', 'Erasing', 'GridDropout', 'MaskDropout'),
    *('PixelDropout', 'XYMasking', 'TimeMasking', 'FrequencyMasking'),
}
# how the names of what MMPose's metrics compute begin
COMPUTED = dict(AUC=['AUC'], CocoMetric=['AP', 'AR'], EPE=['EPE'], NME=['NME'])
NORM_ITEMS = dict(bbox='PCK', head='PCKh', torso='tPCK')
LESS_IS_BETTER = ('EPE', 'NME')
# MMPose's classes for MPII count pixels from 1, and this package's from 0
PIXEL_OFF = {('MPIIPoseDataset', 'MpiiPCKAccuracy'), ('MpiiDataset', 'MPIIPCKh')}


def check_runner(runner: Runner, *phases: str) -> None:
    """Check what was built for a runner that has not run yet.

    Args:
        runner: The runner. Its log warns of a schedule that is longer than the training, and of settings of
            the optimizer for parameters that the model does not have.
        phases: 'train', 'val' and 'test'. Those that the config does not have are left out.

    Raises:
        InputError: A transform comes where it has no effect or a wrong one; the input size, the codec,
            ``use_udp`` or the number of keypoints differs from the head's; a metric does not fit the dataset,
            or two compute one name; ``save_best`` or a monitor waits for what no metric computes, or keeps
            the worst; an epoch has no step, or a last batch that batch norm cannot take.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    for phase in phases:
        try:
            loop = getattr(runner, f'{phase}_loop')
        except ValueError as error:
            if EMPTY in str(error):
                parts = parts_of(runner.cfg, f'{phase}_dataloader{DATASET}').values()
                raise InputError(f'{phase}_dataloader: {why_empty(parts)}') from error
            raise
        metrics = getattr(getattr(loop, 'evaluator', None), 'metrics', ())
        loader = getattr(loop, 'dataloader', None)  # None: the config has no such phase
        for dataset, steps in paths(getattr(loader, 'dataset', None)):
            for problem in (
                *wrong_order(steps),
                *disagreements(steps, dataset, model),
                *unfit_metrics(dataset, metrics),
            ):
                raise InputError(f'{phase}_dataloader: {problem}')
        for problem in clashes(metrics):
            raise InputError(f'{phase}_evaluator: {problem}')
        if phase == 'val':
            for problem in wrong_monitors(runner, metrics):
                raise InputError(problem)
        if phase == 'train' and isinstance(loader, DataLoader):  # not a loop of one's own
            for problem in wrong_batches(loader, model):
                raise InputError(f'train_dataloader: {problem}')
            for problem in (*outlasting(runner.cfg, loop.max_epochs, loop.max_iters), *idle_keys(runner)):
                runner.logger.warning(problem)


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


def kinds(thing) -> set[str]:
    """The names of a thing's class and of those that it inherits."""
    return {kind.__name__ for kind in type(thing).__mro__}


def wrong_order(steps: Sequence) -> Iterator[str]:
    """What is wrong with a sequence of transforms, whatever the model. Those of others may do anything."""
    crop = None
    for index, (step, name) in enumerate((step, type(step).__name__) for step in steps):
        if crop is None and kinds(step) & CROPS:
            crop = name
            if any('GenerateTarget' in kinds(before) for before in steps[:index]):
                yield f'GenerateTarget comes before {crop}, and draws keypoints of the image; put it after.'
        elif crop and kinds(step) & BEFORE_CROP:
            yield f'{name} comes after {crop}, too late for the crop and its keypoints; put it before.'
        for mover in moving(step) if crop else ():
            yield (
                f'{mover} of albumentations in {name} comes after {crop}, and moves pixels without their '
                f'keypoints; leave that to {crop}.'
            )


def moving(step) -> Iterator[str]:
    """Transforms of albumentations that move pixels, in MMPose's ``Albumentation`` and whatever wraps it."""
    if 'DualTransform' in kinds(step) and type(step).__name__ not in KEEP_POSITIONS:
        yield type(step).__name__
    inner = getattr(step, 'aug', getattr(step, 'transforms', ()))  # of MMPose; of MMCV and albumentations
    for each in inner if isinstance(inner, (list, tuple)) else [inner]:
        yield from moving(each)


def disagreements(steps: Sequence, dataset, model: nn.Module) -> Iterator[str]:
    """Settings of transforms and of the data preprocessor that differ from those of the model's head."""
    decoder = getattr(getattr(model, 'head', None), 'decoder', None)
    if decoder is None:
        return
    known = type(decoder) in (MSRAHeatmap, UDPHeatmap)
    codecs = {'data_preprocessor': getattr(model.data_preprocessor, 'encoder', None)}
    pairs = []
    keypoints = (getattr(dataset, 'metainfo', None) or {}).get('num_keypoints')
    for step in steps:
        name = type(step).__name__
        codecs[name] = getattr(step, 'encoder', None)
        keypoints = getattr(step, 'num_keypoints', keypoints)  # which may change it
        if kinds(step) & CROPS:
            pairs.append((f'{name}.input_size', step.input_size, getattr(decoder, 'input_size', None)))
            if known:
                pairs.append((f'{name}.use_udp', bool(step.use_udp), type(decoder) is UDPHeatmap))
    for name, codec in codecs.items():
        if codec is not None and not isinstance(codec, list):
            pairs.append((f'{name}.encoder.type', type(codec).__name__, type(decoder).__name__))
            for key in ('input_size', 'heatmap_size', 'heatmap_type'):
                pairs.append(
                    (f'{name}.encoder.{key}', getattr(codec, key, None), getattr(decoder, key, None))
                )
    for place, value, wanted in pairs:
        value, wanted = (tuple(v) if isinstance(v, (list, tuple)) else v for v in (value, wanted))
        if value != wanted and None not in (value, wanted):
            yield f'{place} is {value}, but the codec of model.head needs {wanted}; make them agree.'
    if any('PackKeypoints' in kinds(step) for step in steps) and codecs['data_preprocessor'] is None:
        yield "PackKeypoints needs model.data_preprocessor=dict(type='HeatmapDataPreprocessor') and a codec."
    # a codec of offsets has three heatmaps a keypoint
    combined = getattr(decoder, 'heatmap_type', None) == 'combined'
    if known and keypoints and not combined and keypoints != model.head.out_channels:
        yield (
            f'the dataset has {keypoints} keypoints, but model.head.out_channels is '
            f'{model.head.out_channels}; make them agree.'
        )


def unfit_metrics(dataset, metrics: Sequence) -> Iterator[str]:
    """Metrics that need another dataset."""
    for metric in metrics:
        if any(one in kinds(dataset) and other in kinds(metric) for one, other in PIXEL_OFF):
            yield (
                f'{type(metric).__name__} is a pixel off with {type(dataset).__name__}; use MPIIPCKh with '
                'MPIIPoseDataset, or MpiiPCKAccuracy with MpiiDataset.'
            )
        if 'MPIIPCKh' in kinds(metric) and not getattr(dataset, 'headbox_file', True):
            yield f'{dataset.ann_file} has no headbox_file, which MPIIPCKh needs; give its mpii_gt_*.mat.'


def computed(metric) -> list[str]:
    """How the names of what a metric computes begin, without its prefix; [''] for those of others."""
    kind = type(metric).__name__
    if kind == 'MPIIPCKh':
        groups = metric.groups or joint_groups(metric.dataset_meta)
        return [*groups, 'Mean', 'AUC'] if groups else [*METRIC_NAMES]
    if kind == 'PCKAccuracy':
        return [NORM_ITEMS[item] for item in metric.norm_item]
    return COMPUTED.get(kind, [''])


def clashes(metrics: Sequence) -> Iterator[str]:
    """Metrics that compute one name, which MMEngine tells after the validation."""
    taken = {}
    for metric in metrics:
        for name in filter(None, computed(metric)):
            full_name = f'{metric.prefix}/{name}' if metric.prefix else name
            first = taken.setdefault(full_name, metric)
            if first is not metric:
                both = ' and '.join(type(each).__name__ for each in (first, metric))
                yield f"{both} both compute {full_name}; give one a prefix='mmpose'."


def wrong_monitors(runner: Runner, metrics: Sequence) -> Iterator[str]:
    """Names of metrics that hooks or schedules wait for and none computes, and rules that keep the worst."""
    monitors = []
    for hook in runner.hooks:
        if isinstance(hook, CheckpointHook) and hook.save_best:
            monitors += [('save_best', *each) for each in zip(hook.key_indicators, hook.rules)]
        elif isinstance(hook, EarlyStoppingHook):
            monitors.append(('monitor of EarlyStoppingHook', hook.monitor, hook.rule))
    for place, part in parts_of(runner.cfg, r'param_scheduler(\.\d+)?').items():
        if 'monitor' in part:
            monitors.append((f'{place}.monitor', part['monitor'], part.get('rule', 'less')))
    names = [name for metric in metrics for name in computed(metric)]
    for place, full_name, rule in monitors if names else ():
        name = names[0] if full_name == 'auto' else full_name.rpartition('/')[2]
        if not name.startswith(tuple(names)):
            yield f'{place} is {full_name!r}, but val_evaluator computes {", ".join(names)}; give one.'
        better = 'less' if name in LESS_IS_BETTER else 'greater'
        if rule not in (better, None) and name in {*names, *LESS_IS_BETTER}:
            yield f'{place}: the rule {rule!r} keeps the worst {name}; set rule={better!r}.'


def wrong_batches(loader: DataLoader, model: nn.Module) -> Iterator[str]:
    """An epoch without a step, and a batch of one image where batch norm would have one value a channel."""
    images, size = len(loader.sampler), loader.batch_size
    endless = isinstance(loader.sampler, InfiniteSampler)
    if not len(loader) and not endless:
        yield (
            f'an epoch has no step, because {images} images do not fill a batch of {size}; give a smaller '
            'batch_size, or drop_last=False.'
        )
    last = size if endless or loader.drop_last or not size else images % size or size
    if last == 1 and needs_two_images(model):
        yield (
            f'{images} images in batches of {size} leave a batch of one, too small for batch norm at the '
            'lowest resolution of the network; set drop_last=True or another batch_size.'
        )


def needs_two_images(model: nn.Module) -> bool:
    """Whether a batch norm has one value a channel for one image."""
    size = getattr(getattr(getattr(model, 'head', None), 'decoder', None), 'input_size', None)
    if size is None:
        return False
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    image = torch.zeros(1, first.in_channels, size[1], size[0], device=first.weight.device)
    try:
        with torch.no_grad(), frozen_running_stats((model.train(),)):
            model.extract_feat(image)
    except ValueError as error:
        return 'more than 1 value per channel' in str(error)
    return False


def outlasting(cfg: Config, max_epochs: int, max_iters: int) -> Iterator[str]:
    """Schedules that are longer than the training."""
    for place, part in parts_of(cfg, r'param_scheduler(\.\w+)*').items():
        length, unit = (max_epochs, 'epochs') if part.get('by_epoch', True) else (max_iters, 'iterations')
        last = max(part.get('milestones') or [part.get('end') or 0, part.get('T_max') or 0])
        if length < last < float('inf'):
            yield f'{place} ({part["type"]}) takes {last} {unit}, and the training has {length}.'


def idle_keys(runner: Runner) -> Iterator[str]:
    """Custom keys of ``paramwise_cfg`` that are in no parameter's name, and so have no effect."""
    names = [name for name, _ in runner.model.named_parameters()]
    wrapper = runner.cfg.optim_wrapper
    # not a wrapper that was built already, nor what the runner is about to refuse
    settings = (isinstance(wrapper, dict) and wrapper.get('paramwise_cfg')) or {}
    for key in settings.get('custom_keys') or ():
        if not any(key in name for name in names):
            yield f'paramwise_cfg: no parameter has the custom key {key!r} in its name.'
