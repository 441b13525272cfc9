"""Imports MMPose 1.3 on both set-ups: full, and slim without compiled mmcv operators, MMDetection and
torchvision.

MMPose imports four names from these packages unconditionally. No hourglass calls them, so placeholders
replace what is missing while MMPose is imported.
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
from pathlib import Path

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

# Module -> package. setup.py does not require them, because pip would change the user's environment to meet
# that.
REQUIRED = dict(
    torch='torch',
    cv2='opencv-python-headless',
    scipy='scipy',
    pkg_resources="'setuptools<81'",
    mmengine='mmengine',
    mmcv='mmcv-lite',
    six='six',
    json_tricks='json_tricks',
    munkres='munkres',
    xtcocotools='xtcocotools',
    matplotlib='matplotlib',
    mmpose='mmpose',
)


def check_requirements() -> None:
    """Raises an ImportError that names the command that installs all missing packages."""
    missing = [package for module, package in REQUIRED.items() if importlib.util.find_spec(module) is None]
    # MMPose requires chumpy, which does not build
    commands = [
        f'pip install {options}{" ".join(packages)}'
        for options, packages in (
            ('', [package for package in missing if package != 'mmpose']),
            ('--no-deps ', [package for package in missing if package == 'mmpose']),
        )
        if packages
    ]
    if missing:
        raise ImportError(f'hg_plugin needs missing packages; run: {" && ".join(commands)}\n{versions()}')


def versions() -> str:
    """Lists the packages that are installed, by their metadata: a report when they cannot be imported."""
    names = {'numpy', 'mmcv', 'mmdet', *(name.strip("'").partition('<')[0] for name in REQUIRED.values())}
    found = {each.metadata['Name']: each.version for each in metadata.distributions()}
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
        files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        named = [name for file in files for name in REQUIRED if name in Path(file).parts]
        package = REQUIRED.get(named[-1], 'mmpose') if named else 'mmpose'
        raise ImportError(
            f'hg_plugin needs {package}, which is installed but cannot be imported: '
            f'{type(error).__name__}: {error}; install another version, or build it for the NumPy here: '
            f'pip install --no-deps --no-build-isolation --force-reinstall --no-binary {package} {package}\n'
            f'{versions()}'
        ) from error


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
    """Replaces the missing modules of :data:`OPTIONAL` inside a ``with`` block."""
    marked_broken = {}
    for module, (names, package) in OPTIONAL.items():
        error = _import_error(module)
        if error is None:
            continue
        stood_in[module] = f'{type(error).__name__}: {error}'
        placeholder = types.ModuleType(module)
        for name in names:
            setattr(placeholder, name, _placeholder(module, name, package))
        parent = module.split('.')[0]
        for name, replacement in {parent: types.ModuleType(parent), module: placeholder}.items():
            if sys.modules.get(name) is None:
                marked_broken[name] = name in sys.modules
                sys.modules[name] = replacement
    try:
        yield
    finally:
        for name, broken in marked_broken.items():
            if broken:
                sys.modules[name] = None  # type: ignore[assignment]
            else:
                del sys.modules[name]


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
    one."""
    from mmpose.visualization.opencv_backend_visualizer import OpencvBackendVisualizer

    stock = OpencvBackendVisualizer.draw_circles

    @functools.wraps(stock)
    def draw_circles(self, center, radius, *args, **kwargs):
        return stock(
            self, center, np.squeeze(radius) if self.backend == 'opencv' else radius, *args, **kwargs
        )

    OpencvBackendVisualizer.draw_circles = draw_circles


def tell_first_pixels() -> None:
    """Lets metrics know whether joints count pixels from 0 or from 1: ``first_pixel`` in the metainfo.

    MMPose's ``MpiiDataset`` leaves joints 1-based, and its ``MpiiPCKAccuracy`` adds 1 to predictions. With
    0-based joints, as MPIIPoseDataset's, it would score them a pixel off.
    """
    from mmpose.datasets import MpiiDataset
    from mmpose.evaluation import MpiiPCKAccuracy

    load_metainfo, process = MpiiDataset._load_metainfo, MpiiPCKAccuracy.process

    @functools.wraps(process)
    def process_one_based(self, data_batch, data_samples):
        known = len(self.results)
        process(self, data_batch, data_samples)
        if (self.dataset_meta or {}).get('first_pixel') == 0:
            for result in self.results[known:]:
                result['gt_coords'] = result['gt_coords'] + 1

    MpiiDataset._load_metainfo = classmethod(
        lambda cls, metainfo=None: {**load_metainfo.__func__(cls, metainfo), 'first_pixel': 1}
    )
    MpiiPCKAccuracy.process = process_one_based
