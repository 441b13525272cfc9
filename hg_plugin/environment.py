"""Work-arounds for the installed OpenMMLab stack; no other file has any.

Two set-ups are supported. *Full* is what MMPose's documentation installs: mmcv with compiled ops, MMDetection,
torchvision; nothing is touched there. *Slim* is mmcv-lite without MMDetection and torchvision: MMPose imports four names
from them that no hourglass ever calls, so stand-ins are put in their place while MMPose is imported, and removed again.
"""
import collections
import contextlib
import importlib
import sys
import types
import warnings

# All that MMPose 1.3 imports unconditionally from optional packages: module -> (names, what to install).
# Any other name must stay missing, because MMPose asks for some of them in `try` blocks to see what is installed.
OPTIONAL = {
    'mmcv.ops': (('MultiScaleDeformableAttention', ), 'mmcv (with compiled ops, instead of mmcv-lite)'),
    'mmdet.utils': (('ConfigType', 'reduce_mean'), 'mmdet'),
    'torchvision.transforms': (('ToPILImage', ), 'torchvision'),
}

# module -> why it could not be imported; empty on the full set-up
stood_in = {}


def _absence(module: str):
    """The error with which ``module`` fails to import, or None where it works."""
    parent = module.split('.')[0]
    try:
        importlib.import_module(module)
    except Exception as error:  # a broken package raises anything: torchvision without its CUDA libraries a RuntimeError
        if parent not in sys.modules:  # its submodules that did import would be half a package
            for name in [name for name in sys.modules if name.startswith(f'{parent}.')]:
                del sys.modules[name]
        return error
    return None


def _stand_in(module: str, name: str, package: str) -> type:
    """A class called ``name`` that raises an ImportError as soon as somebody makes or calls one."""

    def refuse(self, *args, **kwargs):
        raise ImportError(f'{module}.{name} was called, but {module} cannot be imported here '
                          f'({stood_in[module]}); install {package}.')

    return type(name, (), dict(__init__=refuse, __module__=module))


@contextlib.contextmanager
def _optional_packages():
    """Stands in for the absent modules of :data:`OPTIONAL` inside a ``with`` block."""
    inserted = []
    for module, (names, package) in OPTIONAL.items():
        error = _absence(module)
        if error is None:
            continue
        stood_in[module] = f'{type(error).__name__}: {error}'
        placeholder = types.ModuleType(module)
        for name in names:
            setattr(placeholder, name, _stand_in(module, name, package))
        parent = module.split('.')[0]
        if parent not in sys.modules:
            sys.modules[parent] = types.ModuleType(parent)
            inserted.append(parent)
        sys.modules[module] = placeholder
        inserted.append(module)
    try:
        yield
    finally:
        for module in inserted:
            del sys.modules[module]


def import_mmpose() -> None:
    """Imports MMPose on the slim and on the full set-up, without warnings that a user can do nothing about."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', category=DeprecationWarning)
        warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
        warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')
        with _optional_packages():
            for module in ('mmpose.models', 'mmpose.visualization', 'mmpose.datasets', 'mmpose.engine'):
                importlib.import_module(module)
        # Afterwards, because it looks for MMDetection in a `try` block and must not find a stand-in.
        importlib.import_module('mmpose.apis')


def allow_mmengine_checkpoints() -> None:
    """Lets ``torch.load(weights_only=True)`` read what MMEngine 0.10 writes beside the weights.

    Those are the logged scalars and NumPy's random state. Everything else stays refused. Before torch 2.4 there is no such list,
    and MMEngine loads there with whatever default torch has.
    """
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer
    if not hasattr(torch.serialization, 'add_safe_globals'):
        return
    dtypes = {type(np.dtype(name)) for name in ('bool', 'int32', 'int64', 'uint32', 'float32', 'float64')}
    torch.serialization.add_safe_globals([
        HistoryBuffer, np.ndarray, np.dtype, *dtypes,
        # the constructors that NumPy's own pickles name, as NumPy 1 and NumPy 2 spell their module
        *((function, f'numpy.{core}.multiarray.{function.__name__}')
          for function in (np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]) for core in ('core', '_core')),
    ])


def describe() -> 'collections.OrderedDict[str, str]':
    """What a bug report needs: versions, slim or full, stand-ins and devices, as text by heading."""
    import platform
    from importlib import metadata

    import torch

    from . import __version__

    def version(*packages):
        for package in packages:
            with contextlib.suppress(metadata.PackageNotFoundError):
                return f'{metadata.version(package)} ({package})' if len(packages) > 1 else metadata.version(package)
        return 'not installed'

    report = collections.OrderedDict({
        'hg_plugin': __version__,
        'Python': f'{platform.python_version()} on {platform.platform()}',
        'torch': torch.__version__,
    })
    for packages in (('mmengine', ), ('mmcv', 'mmcv-lite'), ('mmpose', ), ('mmdet', ), ('torchvision', ), ('numpy', ),
                     ('opencv-python-headless', 'opencv-python', 'opencv-contrib-python'), ('xtcocotools', ), ('scipy', )):
        report[packages[0].replace('-python-headless', '')] = version(*packages)
    report['set-up'] = 'slim' if stood_in else 'full'
    for module, reason in stood_in.items():
        report[f'stood in: {module}'] = reason
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            report[f'GPU {index}'] = f'{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}'
    else:
        report['GPU'] = 'none that torch can use'
    report['CPU threads'] = str(torch.get_num_threads())
    return report
