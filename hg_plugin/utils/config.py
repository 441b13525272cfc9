"""Read configs, and report mistakes in them in one sentence."""

import contextlib
import copy
import difflib
import inspect
import os.path as osp
import re
import traceback
from collections.abc import Iterator
from os import PathLike

from mmengine.config import Config
from mmengine.runner import Runner

from .errors import InputError, in_own_code

# what MMEngine, MMPose and torch raise for settings that they do not accept
CONFIG_ERRORS = (KeyError, TypeError, AttributeError, AssertionError, ValueError)
# what MMEngine's runner, this package's and MMPose's inferencer read of a config; all else are variables
READ = {
    *inspect.signature(Runner.__init__).parameters,
    'compile',
    'cuda_graph',
    'custom_imports',
    'dataset_type',
    'data_mode',
}
# patterns for parts_of: a loader, and below it a dataset, which may wrap another one or several
LOADER = r'(train|val|test)_dataloader'
DATASET = r'\.dataset(\.dataset|\.datasets\.\d+)*'


def read_config(
    config: str | PathLike | Config, *, data_root: str | None = None, cfg_options: dict | None = None
) -> Config:
    """Read a config, and override settings in it.

    Args:
        config: Path of a config file, 'hg_plugin::NAME' of the package, or a config, which is copied.
        data_root: Folder of every dataset. Defaults to the config's.
        cfg_options: Settings to override, such as ``{'train_cfg.max_epochs': 10}``. ``input_size``
            (W, H), here or in the config, is that of all crops and codecs, and ``heatmap_size`` a quarter.

    Raises:
        InputError: The file is missing or raises an error, an option does not fit or is read by nothing, or
            there is no ``model``.
    """
    if '::' in str(config) and not isinstance(config, Config):
        config, _ = Config._get_cfg_path(str(config), '')
    if isinstance(config, Config):
        cfg = copy.deepcopy(config)
    elif not osp.isfile(config):
        problem = 'is a folder' if osp.isdir(config) else 'does not exist'
        raise InputError(f'The config file {config} {problem}; configs/ holds those of hg_plugin.')
    else:
        try:
            cfg = Config.fromfile(config)
        except Exception as error:  # a config is a program and may raise anything
            if in_own_code(error.__traceback__.tb_next):
                raise
            reason = f'{type(error).__name__}: {error}; correct it.'
            if isinstance(error, ImportError) and error.__cause__:  # MMEngine's lists sys.path, and hides why
                failed = error.__cause__
                reason = (
                    f'custom_imports: {failed}: {failed.__context__}; correct the name, or set PYTHONPATH to '
                    'the folder that holds the module.'
                )
            raise InputError(f'The config file {config} cannot be read: {reason}') from error
    options = dict(cfg_options or {})
    with building(cfg, f'run with {cfg_options}'):
        size = options.pop('input_size', cfg.get('input_size'))
        for part in parts_of(cfg, r'.+').values() if size else ():
            if 'input_size' in part:
                part['input_size'] = tuple(size)
            if 'heatmap_size' in part:
                part['heatmap_size'] = (size[0] // 4, size[1] // 4)
        for option in options:
            _refuse_unread(cfg, option)
        cfg.merge_from_dict(options)
    if not isinstance(cfg.get('model'), dict):
        raise InputError(f'{cfg.filename or "The config"} has no model = dict(...); add it.')
    for dataset in parts_of(cfg, LOADER + DATASET).values() if data_root else ():
        if not {'dataset', 'datasets'} & dataset.keys():
            dataset['data_root'] = data_root
    if data_root and 'data_root' in cfg:
        cfg.data_root = data_root
    return cfg


def _refuse_unread(cfg: Config, option: str) -> None:
    """Refuse an option that MMEngine would merge and nothing would read, and name those it may stand for."""
    if option.partition('.')[0] in READ:
        return
    settings = [
        f'{place}.{key}'.lstrip('.')
        for place, part in parts_of(cfg, r'.*').items()
        for key in part
        if (place or key).partition('.')[0] in READ
    ]
    name = option.rpartition('.')[2]
    near = difflib.get_close_matches(
        option, [setting for setting in settings if setting.endswith(f'.{name}')] or settings, cutoff=0.3
    )
    raise InputError(
        f'Nothing reads the option {option}: if the config has such a variable, it has copied it already; '
        f'give the setting itself{", such as " if near else ""}{" or ".join(near)}.'
    )


def parts_of(cfg: Config | dict, pattern: str) -> dict[str, dict]:
    """The dicts in a config whose places, such as ``param_scheduler.0``, match a regular expression."""

    def walk(place, value):
        if hasattr(value, 'items'):
            yield place, value
        for key, item in value.items() if hasattr(value, 'items') else enumerate(value):
            if isinstance(item, (dict, list, tuple)):
                yield from walk(f'{place}.{key}'.lstrip('.'), item)

    return {place: part for place, part in walk('', cfg) if re.fullmatch(pattern, place)}


@contextlib.contextmanager
def building(config: str | Config, thing: str, late: bool = False) -> Iterator[None]:
    """Turn an error from building ``thing`` into an :class:`InputError` that names the config.

    An error in the user's own code passes, with its traceback.

    Args:
        config: The config or its path, for the message.
        thing: What is built, for the message.
        late: The block also does other work, as ``Runner.train`` does: let errors pass unless they come from
            one of MMEngine's ``build_*`` functions. Defaults to False.
    """
    try:
        yield
    except (*CONFIG_ERRORS, RuntimeError, ImportError) as error:
        # the first frames are this one and that of the block
        if isinstance(error, InputError) or in_own_code(error.__traceback__.tb_next.tb_next):
            raise
        name = getattr(config, 'filename', config) or 'The config'
        if isinstance(error, ImportError):  # of a backend of the visualizer, say
            raise InputError(f'{name} needs a package that cannot be imported: {error}') from error
        frames = traceback.extract_tb(error.__traceback__)
        builds = any(frame.name.startswith('build_') and 'mmengine' in frame.filename for frame in frames)
        if not (builds if late else isinstance(error, CONFIG_ERRORS)):
            raise
        reason = str(error) or frames[-1].line  # MMEngine has asserts without a message
        raise InputError(
            f'{name} builds no {thing}: {type(error).__name__}: {reason} '
            f'({osp.basename(frames[-1].filename)}, line {frames[-1].lineno}); correct it.'
        ) from error
