"""Read a config file and report mistakes in it."""

import contextlib
import os.path as osp
import traceback

from mmengine.config import Config

from .errors import InputError

# what MMEngine, MMPose and torch raise for settings that they do not know or like
CONFIG_ERRORS = (KeyError, TypeError, AttributeError, AssertionError, ValueError)


def read_config(path: str) -> Config:
    """MMEngine's config from a file.

    Raises:
        InputError: for a file that is missing or wrong.
    """
    if osp.isdir(path):
        raise InputError(f'The config {path} is a folder; give a file in it.')
    if not osp.isfile(path):
        raise InputError(
            f'The config file {path} does not exist; configs/ holds those that come with hg_plugin.'
        )
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is the user's program, and may raise anything
        raise InputError(
            f'The config file {path} cannot be read: {type(error).__name__}: {error}; correct it.'
        ) from error
    if not isinstance(cfg.get('model'), dict):
        raise InputError(f'The config file {path} has no model = dict(...); configs/ holds complete ones.')
    return cfg


@contextlib.contextmanager
def building(config: str, thing: str):
    """Turn what is raised while building ``thing`` from the file ``config`` into an :class:`InputError`."""
    try:
        yield
    except InputError:
        raise
    except CONFIG_ERRORS as error:
        raise config_mistake(config, thing, error) from error


def config_mistake(config: str, thing: str, error: Exception) -> InputError:
    place = traceback.extract_tb(error.__traceback__)[-1]
    reason = ' '.join(str(error).split()) or place.line  # MMEngine asserts without a word
    return InputError(
        f'{config} builds no {thing}: {type(error).__name__}: {reason} '
        f'({osp.basename(place.filename)}, line {place.lineno}); correct it.'
    )
