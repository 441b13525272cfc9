"""Imports MMPose 1.3 on both set-ups: full, and slim without compiled mmcv operators, MMDetection and
torchvision.

MMPose imports four names from these packages unconditionally. No hourglass calls them, so placeholders
replace what is missing while MMPose is imported. pycocotools replaces a missing xtcocotools.
"""

import contextlib
import functools
import importlib.util
import platform
import sys
import traceback
import types
import warnings
from collections.abc import Iterator
from importlib import import_module, metadata

import numpy as np

# All that MMPose imports unconditionally from optional packages: module -> (names, what to install). Any
# other name must stay missing, because MMPose asks for some of them in `try` blocks to see what is installed.
OPTIONAL = {
    'mmcv.ops': (('MultiScaleDeformableAttention',), 'mmcv (with compiled ops, instead of mmcv-lite)'),
    'mmdet.utils': (('ConfigType', 'reduce_mean'), 'mmdet'),
    'torchvision.transforms': (('ToPILImage',), 'torchvision'),
}

# module -> why it could not be imported; empty on the full set-up
stood_in: dict[str, str] = {}

# Module -> package, of all that MMPose imports. setup.py requires none, because pip would change the user's
# environment to meet that.
REQUIRED = dict(
    torch='torch',
    cv2='opencv-python-headless',
    scipy='scipy',
    matplotlib='matplotlib',
    pkg_resources="'setuptools<81'",
    addict='addict',
    yaml='pyyaml',
    rich='rich',
    termcolor='termcolor',
    yapf='yapf',
    platformdirs='platformdirs',
    six='six',
    json_tricks='json_tricks',
    munkres='munkres',
    pycocotools='pycocotools',  # or xtcocotools
)
# These require opencv-python, which breaks a headless OpenCV, and chumpy, which does not build.
WITHOUT_DEPENDENCIES = dict(mmengine='mmengine', mmcv='mmcv-lite', mmpose='mmpose')


def check_requirements() -> None:
    """Raises an ImportError that names the command that installs all missing packages."""
    missing = {
        options: [package for module, package in packages.items() if not _is_installed(module)]
        for options, packages in (('', REQUIRED), ('--no-deps ', WITHOUT_DEPENDENCIES))
    }
    commands = [f'pip install {options}{" ".join(each)}' for options, each in missing.items() if each]
    if commands:
        raise ImportError(f'hg_plugin needs missing packages; run: {" && ".join(commands)}\n{versions()}')


def _is_installed(module: str) -> bool:
    either = (module, 'xtcocotools') if module == 'pycocotools' else (module,)
    return any(importlib.util.find_spec(name) for name in either)


def versions(*more: str) -> str:
    """Lists the packages that are installed, by their metadata: a report when they cannot be imported."""
    stock = ('numpy', 'setuptools', 'mmcv', 'mmdet', 'xtcocotools')
    names = {*more, *stock, *REQUIRED.values(), *WITHOUT_DEPENDENCIES.values()}
    found = {each.metadata['Name'].lower(): each.version for each in metadata.distributions()}
    known = [f'{name} {found[name]}' for name in sorted(found) if name in names or 'opencv' in name]
    return f'Python {platform.python_version()}, {", ".join(known)}'


def import_mmpose() -> None:
    """Imports MMPose. If that fails, says which package is broken.

    Raises:
        ImportError: A package is installed and cannot be imported, such as one that was compiled for another
            NumPy.
    """
    try:
        _import_mmpose()
    except Exception as error:  # a broken package raises anything
        package = _broken_package(error)
        raise ImportError(
            f'hg_plugin needs MMPose, which cannot be imported because {package} is missing or broken: '
            f'{type(error).__name__}: {error}; install another version of {package}, '
            f'or uninstall it if you do not need it.\n{versions(package)}'
        ) from error


def _broken_package(error: Exception) -> str:
    """The missing package, or the last in the traceback whose import has not succeeded: others, such as
    NumPy, only refuse what it asks of them."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [frame.f_globals.get('__name__', '').partition('.')[0] for frame in frames]
    packages = [name for name in modules if name not in {'hg_plugin', *sys.stdlib_module_names}]
    broken = [name for name in packages if name not in sys.modules] or packages
    if isinstance(error, ModuleNotFoundError) and error.name:
        broken.append(error.name.partition('.')[0])
    return metadata.packages_distributions().get(broken[-1], broken)[-1]


def _import_mmpose() -> None:
    """Imports MMPose without warnings that its users cannot act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', category=DeprecationWarning)
        warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
        warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')
        with _placeholders():
            for module in ('mmpose.models', 'mmpose.visualization', 'mmpose.datasets', 'mmpose.engine'):
                import_module(module)
        # afterwards, because it looks for MMDetection in a `try` block and must not find a placeholder
        import_module('mmpose.apis')


@contextlib.contextmanager
def _placeholders() -> Iterator[None]:
    """Replaces xtcocotools and the modules of :data:`OPTIONAL` that are missing, inside a ``with`` block."""
    replacements: dict[str, types.ModuleType] = {}
    for module, (names, package) in OPTIONAL.items():
        error = _import_error(module)
        if error is None:
            continue
        stood_in[module] = f'{type(error).__name__}: {error}'
        placeholder = types.ModuleType(module)
        for name in names:
            setattr(placeholder, name, _placeholder(module, name, package))
        parent = module.split('.')[0]
        replacements.update({parent: types.ModuleType(parent), module: placeholder})
    if error := _import_error('xtcocotools.coco'):
        from . import xtcocotools

        stood_in['xtcocotools'] = f'{type(error).__name__}: {error}'
        replacements.update({f'xtcocotools{part}': xtcocotools for part in ('', '.coco', '.cocoeval')})
        replacements['xtcocotools.mask'] = xtcocotools.mask
    replaced = {name: each for name, each in replacements.items() if sys.modules.get(name) is None}
    broken = [name for name in replaced if name in sys.modules]
    sys.modules.update(replaced)
    try:
        yield
    finally:
        for name in replaced:
            del sys.modules[name]
        sys.modules.update(dict.fromkeys(broken))  # type: ignore[arg-type]  # None means broken


def _import_error(module: str) -> Exception | None:
    parent = module.split('.')[0]
    try:
        import_module(module)
    except Exception as error:  # a broken package raises anything: torchvision without CUDA a RuntimeError
        if not hasattr(
            sys.modules.get(parent), '__version__'
        ):  # submodules that did import are half a package
            for name in [name for name in sys.modules if name.split('.')[0] == parent]:
                del sys.modules[name]
            if not (isinstance(error, ModuleNotFoundError) and error.name == parent):
                # installed but broken: others, such as MMEngine's runner, must take it for not installed
                sys.modules[parent] = None  # type: ignore[assignment]
        return error
    return None


def _placeholder(module: str, name: str, package: str) -> type:
    """A class that raises an ImportError when it is called."""

    def refuse(self, *args, **kwargs):
        raise ImportError(
            f'{module}.{name} was called, but {module} cannot be imported ({stood_in[module]}); '
            f'install {package}.'
        )

    return type(name, (), dict(__init__=refuse, __module__=module))


def draw_circles_with_new_numpy() -> None:
    """Lets MMPose's visualizer draw with NumPy 2.5, which makes no number of MMPose's radius, an array of
    one. Older NumPy needs nothing."""
    from mmengine.utils import digit_version

    if digit_version(np.__version__)[:2] < (2, 5):
        return
    from mmpose.visualization.opencv_backend_visualizer import OpencvBackendVisualizer

    stock = OpencvBackendVisualizer.draw_circles

    @functools.wraps(stock)
    def draw_circles(self, center, radius, *args, **kwargs):
        return stock(
            self, center, np.squeeze(radius) if self.backend == 'opencv' else radius, *args, **kwargs
        )

    OpencvBackendVisualizer.draw_circles = draw_circles
