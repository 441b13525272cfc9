"""Reading a config file."""
import os.path as osp

from mmengine.config import Config

from ..errors import InputError


def read_config(path: str) -> Config:
    """MMEngine's config from a file.

    Raises:
        InputError: for a file that is missing or wrong.
    """
    if osp.isdir(path):
        raise InputError(f'The config {path} is a folder; give a file in it.')
    if not osp.isfile(path):
        raise InputError(f'The config file {path} does not exist; configs/ holds those that come with hg_plugin.')
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is the user's program, and may raise anything
        raise InputError(f'The config file {path} cannot be read: {type(error).__name__}: {error}; correct it.') from error
    if not isinstance(cfg.get('model'), dict):
        raise InputError(f'The config file {path} has no model = dict(...); configs/ holds complete ones.')
    return cfg


def check_kinds(cfg: Config) -> None:
    """Raises an :class:`InputError` where a number, a word or a list stands for the settings of something to build."""
    loaders = [f'{phase}_dataloader' for phase in ('train', 'val', 'test')]
    for place in ('model', 'model.backbone', 'model.head', 'model.head.decoder', 'model.data_preprocessor', 'optim_wrapper',
                  'optim_wrapper.optimizer', *loaders, *(f'{loader}.dataset' for loader in loaders), 'default_hooks'):
        part = cfg
        for key in place.split('.'):
            part = part.get(key)
            if part is None:
                break
        if not isinstance(part, (dict, type(None))) or (part is None and place == 'model'):
            raise InputError(f'{place} is {part!r}; give dict(...), as the configs in configs/ do.')


def check_sizes(cfg: Config) -> None:
    """Raises an :class:`InputError` where pictures are cropped or targets drawn for another input size than the head decodes."""
    decoder = (cfg.model.get('head') or {}).get('decoder') or {}
    places = {'model.data_preprocessor.encoder': (cfg.model.get('data_preprocessor') or {}).get('encoder')}
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for index, transform in enumerate((cfg.get(loader) or {}).get('dataset', {}).get('pipeline', [])):
            places[f'{loader}.dataset.pipeline.{index} ({transform.type})'] = transform.get('encoder', transform)
    for place, codec in places.items():
        if not isinstance(codec, dict):
            continue
        for key in ('input_size', 'heatmap_size'):
            if key in codec and key in decoder and tuple(codec[key]) != tuple(decoder[key]):
                raise InputError(f'{place} has {key} {tuple(codec[key])}, but model.head.decoder {tuple(decoder[key])}; give all the same codec.')
