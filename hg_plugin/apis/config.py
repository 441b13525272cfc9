"""Reading a config file."""
import os.path as osp

from mmengine.config import Config

from ..errors import InputError


def read_config(path: str) -> Config:
    """MMEngine's config from a file.

    Raises:
        InputError: for a file that is missing or wrong.
    """
    if not osp.isfile(path):
        raise InputError(f'The config file {path} does not exist; configs/ holds those that come with hg_plugin.')
    try:
        return Config.fromfile(path)
    except (SyntaxError, KeyError, AttributeError, TypeError, OSError, ImportError) as error:
        raise InputError(f'The config file {path} cannot be read: {type(error).__name__}: {error}; correct it.') from error
