"""MMEngine 0.10: configs of this package by name, what checkpoints hold beside weights, guarded resuming."""

import codecs
import pickle
import pkgutil
import types
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

# configs/ and tools/: files in a wheel, links in the repository
MIM = Path(__file__).parents[1] / '.mim'


def look_for_mmcv_operators() -> None:
    """Lets MMEngine and MMCV call ``pkgutil.find_loader``, which Python 3.14 has no more."""
    from mmcv.utils import ext_loader
    from mmengine.utils.dl_utils import misc

    if not hasattr(pkgutil, 'find_loader'):
        misc.pkgutil = ext_loader.pkgutil = types.SimpleNamespace(find_loader=find_spec)


def find_plugin_configs() -> None:
    """Lets a config in any folder say ``_base_ = 'hg_plugin::hg_2stack_mpii.py'``.

    MMEngine knows the packages of OpenMMLab by name and no others. Import the plugin before the config is
    read. MMPose's configs, which the plugin's inherit, are found without MMEngine's slow reload of
    pkg_resources.
    """
    import mmpose
    from mmengine.config import Config

    stock = Config._get_cfg_path
    # no scope for the plugin: its modules are in the root registries, where every scope finds them
    packages = {'hg_plugin': (MIM, None), 'mmpose': (Path(mmpose.__file__).parent / '.mim', 'mmpose')}

    def get_cfg_path(cfg_path: str, filename: str):
        package, _, name = cfg_path.partition('::')
        if package not in packages or not name:
            return stock(cfg_path, filename)
        mim, scope = packages[package]
        return str(mim / 'configs' / name), scope

    Config._get_cfg_path = staticmethod(get_cfg_path)


def guard_resume(*replacements: Callable) -> None:
    """Replaces the methods of ``Runner`` that have the names of these functions.

    MMEngine's execute what a checkpoint holds, and resume from damaged files.
    """
    from mmengine.runner import Runner

    for replacement in replacements:
        setattr(Runner, replacement.__name__, replacement)


def logged_scalars() -> dict:
    """What MMEngine writes beside weights, by name in the pickle: HistoryBuffers of NumPy arrays.

    Their pickles name NumPy's dtypes and constructors, and methods of HistoryBuffer by way of ``getattr``.
    """
    import numpy as np
    from mmengine.logging import HistoryBuffer

    classes = {HistoryBuffer, np.ndarray, np.dtype, *(type(np.dtype(code)) for code in '?bhilqBHILQefd')}
    constructors = (np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0])
    return {
        **{f'{each.__module__}.{each.__qualname__}': each for each in classes},
        # the module of the constructors has one name in NumPy 1 and another in NumPy 2
        **{
            f'numpy.{core}.multiarray.{function.__name__}': function
            for function in constructors
            for core in ('core', '_core')
        },
        **{
            f'{builtins}.{name}': value
            for name, value in (('getattr', _statistics_method), ('set', set), ('bytes', _no_bytes))
            for builtins in ('builtins', '__builtin__')
        },
        '_codecs.encode': codecs.encode,  # bytes, in older pickles
    }


def _statistics_method(owner: type, name: str):
    """The only use of ``getattr`` in a pickled HistoryBuffer."""
    from mmengine.logging import HistoryBuffer

    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'Unsupported getattr of {name} from {owner}')
    return getattr(HistoryBuffer, name)


def _no_bytes() -> bytes:
    """The content of an empty array, such as ``sigmas`` of a dataset without them."""
    return b''
