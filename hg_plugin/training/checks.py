"""Refuse plausible mistakes in a config before anything is trained or tested.

MMPose's transforms hand a dict to each other and take what they find in it, so that a wrong order trains on
wrong keypoints in silence. What is checked are the transforms, codecs and metrics that were built, inside
wrapped datasets too, and not the config, which may name them by classes, by words, or not at all.
"""

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmpose.codecs import MSRAHeatmap, UDPHeatmap
from torch import nn
from torch.utils.data import DataLoader

from hg_plugin.datasets.walk import wrapped
from hg_plugin.evaluation import METRIC_NAMES, joint_groups
from hg_plugin.utils.config import DATASET, LOADER, parts_of
from hg_plugin.utils.errors import InputError

from .data_check import EMPTY, UNUSABLE

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
# how the names begin that MMPose's metrics compute
COMPUTED = dict(AUC=['AUC'], CocoMetric=['AP', 'AR'], EPE=['EPE'], NME=['NME'], PCKAccuracy=['PCK', 'tPCK'])
LESS_IS_BETTER = ('EPE', 'NME')
# MMPose's classes for MPII count pixels from 1, and this package's from 0
PIXEL_OFF = {('MPIIPoseDataset', 'MpiiPCKAccuracy'), ('MpiiDataset', 'MPIIPCKh')}


def check_config(cfg: Config) -> None:
    """Check that something reads the variables ``codec`` and ``data_root`` of a config that has a base.

    Raises:
        InputError: The base had copied them before the config's file set them.
    """
    own = ast.parse(Path(cfg.filename).read_text('utf-8-sig')).body if cfg.filename else []
    targets = [target for node in own if isinstance(node, ast.Assign) for target in node.targets]
    assigned = {getattr(target, 'id', None) for target in targets}
    if '_base_' not in assigned:  # such as a config that a run has written
        return
    if 'codec' in assigned and cfg.codec not in parts_of(cfg, r'model\..+').values():
        raise InputError(f'{cfg.filename} sets codec, which nothing reads; set model.codec, too.')
    roots = [dataset.get('data_root') for dataset in parts_of(cfg, LOADER + DATASET).values()]
    if 'data_root' in assigned and not any(str(root).startswith(cfg.data_root) for root in roots):
        raise InputError(
            f"{cfg.filename} sets data_root to '{cfg.data_root}', but no dataset has it; set the data_root "
            'of the datasets, too.'
        )


def check_runner(runner: Runner, *phases: str) -> None:
    """Check what was built for a runner that has not run yet.

    Args:
        runner: The runner. Its log warns of a schedule that is longer than the training, and of settings of
            the optimizer for parameters that the model does not have.
        phases: 'train', 'val' and 'test'. Those that the config does not have are left out.

    Raises:
        InputError: A transform comes where it has no effect or a wrong one; the input size, the codec,
            ``use_udp`` or the number of keypoints differs from the head's; a metric does not fit the dataset;
            ``save_best`` waits for what no metric computes, or keeps the worst; or an epoch has no step.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    for phase in phases:
        try:
            loop = getattr(runner, f'{phase}_loop')
        except ValueError as error:
            if EMPTY in str(error):
                raise InputError(f'{phase}_dataloader: {UNUSABLE}') from error
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
        if phase == 'val':
            for problem in wrong_best(runner.hooks, metrics):
                raise InputError(f'default_hooks.checkpoint: {problem}')
        if phase == 'train' and isinstance(loader, DataLoader):  # not a loop of one's own
            if not len(loader) and not isinstance(loader.sampler, InfiniteSampler):
                raise InputError(
                    f'train_dataloader: an epoch has no step, as {len(loader.sampler)} images do not fill '
                    f'a batch of {loader.batch_size}; give a smaller batch_size, or drop_last=False.'
                )
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


def wrong_order(steps: Sequence) -> Iterator[str]:
    """What is wrong with a sequence of transforms, whatever the model. Those of others may do anything."""
    names = [type(step).__name__ for step in steps]
    crop = next((index for index, name in enumerate(names) if name in CROPS), None)
    if crop is None:
        return
    if 'GenerateTarget' in names[:crop]:
        yield f'GenerateTarget comes before {names[crop]}, and draws keypoints of the image; put it after.'
    for name, step in zip(names[crop + 1 :], steps[crop + 1 :]):
        if name in BEFORE_CROP:
            yield f'{name} comes after {names[crop]}, too late for the crop and its keypoints; put it before.'
        for mover in moving(step):
            yield (
                f'{mover} of albumentations in {name} comes after {names[crop]}, and moves pixels without '
                f'their keypoints; leave that to {names[crop]}.'
            )


def moving(step) -> Iterator[str]:
    """Transforms of albumentations that move pixels, in MMPose's ``Albumentation`` and whatever wraps it."""
    bases = {base.__name__ for base in type(step).__mro__}
    if 'DualTransform' in bases and type(step).__name__ not in KEEP_POSITIONS:
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
        if name in CROPS:
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
    if 'PackKeypoints' in codecs and codecs['data_preprocessor'] is None:
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
    for kind in (type(metric).__name__ for metric in metrics):
        if (type(dataset).__name__, kind) in PIXEL_OFF:
            yield (
                f'{kind} is a pixel off with {type(dataset).__name__}; use MPIIPCKh with MPIIPoseDataset, or '
                'MpiiPCKAccuracy with MpiiDataset.'
            )
        if kind == 'MPIIPCKh' and not getattr(dataset, 'headbox_file', True):
            yield f'{dataset.ann_file} has no headbox_file, which MPIIPCKh needs; give its mpii_gt_*.mat.'


def wrong_best(hooks: Sequence, metrics: Sequence) -> Iterator[str]:
    """Metrics that ``save_best`` waits for and none computes, and rules that keep the worst."""
    names: list[str] = []
    for metric in metrics:
        kind = type(metric).__name__
        if kind == 'MPIIPCKh':
            groups = metric.groups or joint_groups(metric.dataset_meta)
            names += [*groups, 'Mean', 'AUC'] if groups else METRIC_NAMES
        else:
            names += COMPUTED.get(kind, [''])  # any name begins so
    for hook in hooks:
        best = isinstance(hook, CheckpointHook) and hook.save_best and zip(hook.key_indicators, hook.rules)
        for full_name, rule in best if names and best else ():
            name = names[0] if full_name == 'auto' else full_name.rpartition('/')[2]
            if not name.startswith(tuple(names)):
                yield f'save_best is {full_name!r}, but val_evaluator computes {", ".join(names)}.'
            if name in LESS_IS_BETTER and rule == 'greater':
                yield f"rule is 'greater', which keeps the worst {name}; set rule='less'."


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
