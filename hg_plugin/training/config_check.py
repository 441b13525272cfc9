"""Saying what is wrong with a config."""

from mmengine.config import Config
from mmpose.registry import OPTIMIZERS

from hg_plugin.evaluation import METRIC_NAMES
from hg_plugin.utils.config import CONFIG_ERRORS, building, config_mistake, read_config  # noqa: F401
from hg_plugin.utils.errors import InputError


def check_kinds(cfg: Config) -> None:
    """Raises an :class:`InputError` where a number, a word or a list stands for the settings of something to build."""
    loaders = [f'{phase}_dataloader' for phase in ('train', 'val', 'test')]
    for place in (
        'model',
        'model.backbone',
        'model.head',
        'model.head.decoder',
        'model.data_preprocessor',
        'optim_wrapper',
        'optim_wrapper.optimizer',
        'train_cfg',
        *loaders,
        *(f'{loader}.{part}' for loader in loaders for part in ('dataset', 'sampler')),
        'default_hooks',
        'default_hooks.checkpoint',
    ):
        part = cfg
        for key in place.split('.'):
            part = part.get(key)
            if part is None:
                break
        if not isinstance(part, (dict, type(None))) or (part is None and place == 'model'):
            raise InputError(f'{place} is {part!r}; give dict(...), as the configs in configs/ do.')
    for loader in loaders:
        pipeline = ((cfg.get(loader) or {}).get('dataset') or {}).get('pipeline', [])
        if not isinstance(pipeline, (list, tuple)) or not all(
            isinstance(transform, dict) for transform in pipeline
        ):
            raise InputError(
                f'{loader}.dataset.pipeline is {pipeline!r}; give a list of dict(...), as the configs in configs/ do.'
            )


def check_sizes(cfg: Config) -> None:
    """Raises an :class:`InputError` where pictures are cropped or targets drawn for another input size than the head decodes."""
    decoder = (cfg.model.get('head') or {}).get('decoder') or {}
    places = {'model.data_preprocessor.encoder': (cfg.model.get('data_preprocessor') or {}).get('encoder')}
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for index, transform in enumerate((cfg.get(loader) or {}).get('dataset', {}).get('pipeline', [])):
            places[f'{loader}.dataset.pipeline.{index} ({transform.type})'] = transform.get(
                'encoder', transform
            )
    for place, codec in places.items():
        if not isinstance(codec, dict):
            continue
        for key in ('input_size', 'heatmap_size'):
            if key in codec and key in decoder and tuple(codec[key]) != tuple(decoder[key]):
                raise InputError(
                    f'{place} has {key} {tuple(codec[key])}, but model.head.decoder {tuple(decoder[key])}; give all the same codec.'
                )


def check_training(cfg: Config) -> None:
    """Raises an :class:`InputError` for what MMEngine says nothing of, or nothing clear, or only after the first validation.

    That are no epochs, a number of epochs between checkpoints that is none, optimisers that it does not know, validation persons without
    head boxes, and best checkpoints by a figure that MPIIPCKh does not give, such as MMPose's 'PCK'.
    """
    for key in ('max_epochs', 'max_iters', *(['val_interval'] if cfg.get('val_dataloader') else [])):
        value = (cfg.get('train_cfg') or {}).get(key)
        if isinstance(value, (int, float)) and value < 1:
            raise InputError(
                f'train_cfg.{key} is {value}; give at least 1'
                + (', or --no-validate.' if key == 'val_interval' else '.')
            )
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    for key in ('interval', 'max_keep_ckpts'):
        if key in checkpoint and not isinstance(checkpoint[key], int):
            raise InputError(f'default_hooks.checkpoint.{key} is {checkpoint[key]!r}; give a whole number.')
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    if isinstance(optimizer.get('type'), str) and OPTIMIZERS.get(optimizer['type']) is None:
        raise InputError(
            f"optim_wrapper.optimizer.type is '{optimizer['type']}', which no optimiser is called; give one of torch's, such as 'Adam'."
        )
    metric = cfg.get('val_evaluator')
    if not isinstance(metric, dict) or metric.get('type') != 'MPIIPCKh':
        return
    dataset = (cfg.get('val_dataloader') or {}).get('dataset') or {}
    if dataset.get('type') in ('MPIIPoseDataset', 'MpiiDataset') and not dataset.get('headbox_file'):
        raise InputError(
            "val_dataloader.dataset has no headbox_file, without which MPIIPCKh knows no head size; set it to the set's mpii_gt_*.mat."
        )
    best = checkpoint.get('save_best')
    for figure in [best] if isinstance(best, str) else best or []:
        if figure not in (*METRIC_NAMES, 'auto') and not metric.get('prefix'):
            raise InputError(
                f"default_hooks.checkpoint.save_best is '{figure}', which MPIIPCKh does not measure; give one of {', '.join(METRIC_NAMES)}."
            )
