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

from .errors import InputError

# what MMEngine, MMPose and torch raise for settings that they do not accept
CONFIG_ERRORS = (KeyError, TypeError, AttributeError, AssertionError, ValueError)
# what MMEngine's runner reads of a config; all else are variables
RUNNER_KEYS = {*inspect.signature(Runner.__init__).parameters, 'compile', 'custom_imports'}
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
        cfg_options: Settings to override, such as ``{'train_cfg.max_epochs': 10}``. A variable of the config,
            such as ``codec.sigma``, is overridden wherever it was used. ``input_size`` (W, H), here or in the
            config, sets the sizes of crops, codecs and heatmaps.

    Raises:
        InputError: The file is missing or raises an error, an option does not fit, or there is no ``model``.
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
            reason = f'{type(error).__name__}: {error}; correct it.'
            if isinstance(error, ImportError) and error.__cause__:  # MMEngine's lists sys.path, and hides why
                failed = error.__cause__
                reason = (
                    f'custom_imports: {failed}: {failed.__context__}; correct the name, or set PYTHONPATH to '
                    'the folder that holds the module.'
                )
            raise InputError(f'The config file {config} cannot be read: {reason}') from error
    for option in cfg_options or {}:
        name = option.partition('.')[0]
        near = [] if name in cfg else difflib.get_close_matches(name, cfg.keys(), n=1, cutoff=0.85)
        if near:  # MMEngine would add it, and nothing would read it
            raise InputError(f"The option {option} is not in the config; did you mean '{near[0]}'?")
    written = copy.deepcopy(cfg)
    with building(cfg, f'run with {cfg_options}'):
        cfg.merge_from_dict(cfg_options or {})
        for option in cfg_options or {}:
            if option.partition('.')[0] not in RUNNER_KEYS:
                _override_uses(cfg, option.split('.'), written)
        _use_input_size(cfg)
    if not isinstance(cfg.get('model'), dict):
        raise InputError(f'{cfg.filename or "The config"} has no model = dict(...); add it.')
    for dataset in parts_of(cfg, LOADER + DATASET).values() if data_root else ():
        if not {'dataset', 'datasets'} & dataset.keys():
            dataset['data_root'] = data_root
    if data_root and 'data_root' in cfg:
        cfg.data_root = data_root
    return cfg


def _override_uses(cfg: Config, place: list[str], written: Config) -> None:
    """Override what a config copied from a variable, which MMEngine replaced by its value.

    Args:
        cfg: The config, whose variable is overridden already.
        place: The variable, such as ``['codec', 'sigma']``. Equal settings of the name ``sigma`` are copies;
            those of a variable by itself may have any name.
        written: The config as it was before.
    """
    old, new, name = written, cfg, place[-1]
    for key in place:
        old, new = (value[key] if key in value else None for value in (old, new))
    if old is None:
        return
    for part in [cfg, *parts_of(cfg, r'.*').values()]:
        for key, value in part.items():
            if value == old and (key == name or len(place) == 1):
                part[key] = copy.deepcopy(new)


def _use_input_size(cfg: Config) -> None:
    """Set the size of crops and codecs to the variable ``input_size``, and of heatmaps to a quarter of it."""
    if 'input_size' not in cfg:
        return
    size = tuple(cfg.input_size)
    for part in parts_of(cfg, r'.+').values():
        if 'input_size' in part:
            part['input_size'] = size
        if 'heatmap_size' in part:
            part['heatmap_size'] = tuple(side // 4 for side in size)


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

    Args:
        config: The config or its path, for the message.
        thing: What is built, for the message.
        late: The block also does other work, as ``Runner.train`` does: let errors pass unless they come from
            one of MMEngine's ``build_*`` functions. Defaults to False.
    """
    try:
        yield
    except InputError:
        raise
    except ImportError as error:  # of a backend of the visualizer, say
        name = getattr(config, 'filename', config) or 'The config'
        raise InputError(f'{name} needs a package that cannot be imported: {error}') from error
    except (*CONFIG_ERRORS, RuntimeError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        builds = any(frame.name.startswith('build_') and 'mmengine' in frame.filename for frame in frames)
        if not (builds if late else isinstance(error, CONFIG_ERRORS)):
            raise
        name = getattr(config, 'filename', config) or 'The config'
        reason = str(error) or frames[-1].line  # MMEngine has asserts without a message
        raise InputError(
            f'{name} builds no {thing}: {type(error).__name__}: {reason} '
            f'({osp.basename(frames[-1].filename)}, line {frames[-1].lineno}); correct it.'
        ) from error
