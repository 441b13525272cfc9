"""Work-arounds for the installed OpenMMLab stack; no other file has any.

Two set-ups are supported. *Full* is what MMPose's documentation installs: mmcv with compiled ops, MMDetection,
torchvision; nothing is touched there. *Slim* is mmcv-lite without MMDetection and torchvision: MMPose imports four names
from them that no hourglass ever calls, so stand-ins are put in their place while MMPose is imported, and removed again.
"""
import atexit
import codecs
import collections
import contextlib
import functools
import gc
import importlib.util
import inspect
import pickle
import sys
import tarfile
import types
import warnings
from importlib import import_module
from pathlib import Path

# configs/ and tools/, in a wheel and (as links) in the repository
MIM = Path(__file__).parent / '.mim'

# All that MMPose 1.3 imports unconditionally from optional packages: module -> (names, what to install).
# Any other name must stay missing, because MMPose asks for some of them in `try` blocks to see what is installed.
OPTIONAL = {
    'mmcv.ops': (('MultiScaleDeformableAttention', ), 'mmcv (with compiled ops, instead of mmcv-lite)'),
    'mmdet.utils': (('ConfigType', 'reduce_mean'), 'mmdet'),
    'torchvision.transforms': (('ToPILImage', ), 'torchvision'),
}

# module -> why it could not be imported; empty on the full set-up
stood_in = {}

# What setup.py leaves to the user's MMPose environment, because pip would change the environment to meet it: module -> package
REQUIRED = dict(torch='torch', cv2='opencv-python-headless', scipy='scipy', pkg_resources="'setuptools<81'", mmengine='mmengine', mmcv='mmcv-lite',
                six='six', json_tricks='json_tricks', munkres='munkres', xtcocotools='xtcocotools', matplotlib='matplotlib',
                mmpose='mmpose')


def check_requirements() -> None:
    """Raises an ImportError that says what to install where a package is missing that MMPose or the plugin needs."""
    missing = [package for module, package in REQUIRED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(f'hg_plugin needs packages that this Python does not have; run: pip install {" ".join(missing)}')


def _absence(module: str):
    """The error with which ``module`` fails to import, or None where it works."""
    parent = module.split('.')[0]
    try:
        import_module(module)
    except Exception as error:  # a broken package raises anything: torchvision without its CUDA libraries a RuntimeError
        if not hasattr(sys.modules.get(parent), '__version__'):  # its submodules that did import would be half a package
            for name in [name for name in sys.modules if name.split('.')[0] == parent]:
                del sys.modules[name]
            if not (isinstance(error, ModuleNotFoundError) and error.name == parent):
                # installed but broken: MMEngine, which asks for its version, and others take it for not installed from now on
                sys.modules[parent] = None
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
    before = {}  # whether a module that is stood in for was marked as broken
    for module, (names, package) in OPTIONAL.items():
        error = _absence(module)
        if error is None:
            continue
        stood_in[module] = f'{type(error).__name__}: {error}'
        placeholder = types.ModuleType(module)
        for name in names:
            setattr(placeholder, name, _stand_in(module, name, package))
        parent = module.split('.')[0]
        for name, stand_in in {parent: types.ModuleType(parent), module: placeholder}.items():
            if sys.modules.get(name) is None:
                before[name] = name in sys.modules
                sys.modules[name] = stand_in
    try:
        yield
    finally:
        for name, broken in before.items():
            if broken:
                sys.modules[name] = None
            else:
                del sys.modules[name]


def import_mmpose() -> None:
    """Imports MMPose on the slim and on the full set-up, without warnings that a user can do nothing about."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', category=DeprecationWarning)
        warnings.filterwarnings('ignore', message='pkg_resources is deprecated')
        warnings.filterwarnings('ignore', message='Fail to import ``MultiScaleDeformableAttention``')
        with _optional_packages():
            for module in ('mmpose.models', 'mmpose.visualization', 'mmpose.datasets', 'mmpose.engine'):
                import_module(module)
        # Afterwards, because it looks for MMDetection in a `try` block and must not find a stand-in.
        import_module('mmpose.apis')


def draw_circles_with_new_numpy() -> None:
    """Lets MMPose 1.3's visualiser draw keypoints: it hands their radius over as an array of one, of which NumPy 2.5 makes no number."""
    from mmpose.visualization.opencv_backend_visualizer import OpencvBackendVisualizer
    stock = OpencvBackendVisualizer.draw_circles

    @functools.wraps(stock)
    def draw_circles(self, center, radius, *args, **kwargs):
        return stock(self, center, radius.squeeze() if self.backend == 'opencv' else radius, *args, **kwargs)

    OpencvBackendVisualizer.draw_circles = draw_circles


def find_plugin_configs() -> None:
    """Lets a config say ``_base_ = 'hg_plugin::hg_2stack_mpii.py'`` in any folder.

    MMEngine 0.10 knows the packages of OpenMMLab by name and no others. The plugin must have been imported when the config is read.
    MMPose's configs, which the plugin's inherit, are found without MMEngine's reload of pkg_resources, which takes long and warns.
    """
    import mmpose
    from mmengine.config import Config
    stock = Config._get_cfg_path
    # no scope for the plugin: its modules are in the root registries, where every scope finds them
    packages = {__package__: (MIM, None), 'mmpose': (Path(mmpose.__file__).parent / '.mim', 'mmpose')}

    def get_cfg_path(cfg_path: str, filename: str):
        package, _, name = cfg_path.partition('::')
        if package not in packages or not name:
            return stock(cfg_path, filename)
        mim, scope = packages[package]
        return str(mim / 'configs' / name), scope

    Config._get_cfg_path = staticmethod(get_cfg_path)


def _statistics_method(owner: type, name: str):
    """What ``getattr`` is for in a pickled HistoryBuffer, and nothing else."""
    from mmengine.logging import HistoryBuffer
    if owner is not HistoryBuffer or name not in ('min', 'max', 'mean', 'current'):
        raise pickle.UnpicklingError(f'Unsupported getattr of {name} from {owner}')
    return getattr(HistoryBuffer, name)


def _logged_scalars() -> dict:
    """What MMEngine 0.10 writes beside the weights, by the names in the pickle: HistoryBuffers of NumPy arrays.

    Their pickles name NumPy's dtypes and constructors, and HistoryBuffer's own methods by way of ``getattr``, for which
    :func:`_statistics_method` stands in. Everything else stays refused.
    """
    import numpy as np
    from mmengine.logging import HistoryBuffer
    classes = {HistoryBuffer, np.ndarray, np.dtype, *(type(np.dtype(code)) for code in '?bhilqBHILQefd')}
    constructors = (np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0])
    return {
        **{f'{each.__module__}.{each.__qualname__}': each for each in classes},
        # as NumPy 1 and NumPy 2 spell the constructors' module, whichever of them wrote the file
        **{f'numpy.{core}.multiarray.{function.__name__}': function for function in constructors for core in ('core', '_core')},
        **{f'{builtins}.{name}': value for name, value in (('getattr', _statistics_method), ('set', set))
           for builtins in ('builtins', '__builtin__')},
        '_codecs.encode': codecs.encode,  # bytes, as the older pickles spell them
    }


def allow_mmengine_checkpoints() -> None:
    """Lets ``torch.load(weights_only=True)`` read the logged scalars of MMEngine's checkpoints, which is its default since torch 2.6.

    Before, MMEngine loads without that restriction, and :func:`load_weights_only` has one of its own.
    """
    import torch
    if _has_safe_globals():
        torch.serialization.add_safe_globals([(value, name) for name, value in _logged_scalars().items()])


def torch_before(version: str) -> bool:
    """Whether torch is older than ``version``, such as '2.6'. Builds ahead of a release, as NVIDIA's containers have, count as it."""
    import torch
    from mmengine.utils import digit_version
    return digit_version(torch.__version__)[:2] < digit_version(version)[:2]


def _has_safe_globals() -> bool:
    """Whether torch takes a list of what weights may come with, by names in the pickle."""
    return not torch_before('2.6')


def load_weights_only(path: str) -> object:
    """``torch.load(weights_only=True)`` to the CPU, of files that may hold MMEngine's logged scalars, with any torch.

    Raises:
        pickle.UnpicklingError: for a file that holds anything else; it names what, after the word GLOBAL.
    """
    import torch
    if _has_safe_globals():
        return torch.load(path, map_location='cpu', weights_only=True)
    with open(path, 'rb') as file:
        if not torch.serialization._is_zipfile(file):  # formats older than MMEngine; torch restricts them well, but for the oldest
            if tarfile.is_tarfile(path):
                raise RuntimeError(f'{path} is a tar archive')
            return torch.load(path, map_location='cpu', weights_only=True)
    if torch.serialization._is_torchscript_zip(torch._C.PyTorchFileReader(path)):
        raise RuntimeError(f'{path} is a TorchScript program')  # which torch before 2.6 would run in spite of weights_only
    allowed = {
        **torch._weights_only_unpickler._get_allowed_globals(),
        **_logged_scalars(),
        **{str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)},
        'torch.device': torch.device,
        'collections.Counter': collections.Counter,
    }

    class Unpickler(pickle._Unpickler):  # the one in Python, because C's lets nobody look at what it builds
        dispatch = dict(pickle._Unpickler.dispatch)

        def find_class(self, module: str, name: str):
            if f'{module}.{name}' not in allowed:
                raise pickle.UnpicklingError(f'GLOBAL {module}.{name} is not allowed')
            return allowed[f'{module}.{name}']

        def load_build(self):
            # attributes of a class or a function would stay when the file has long been read
            if isinstance(self.stack[-2], (type, types.FunctionType, types.BuiltinFunctionType)):
                raise pickle.UnpicklingError(f'Unsupported attributes of {self.stack[-2]}')
            super().load_build()

        dispatch[pickle.BUILD[0]] = load_build

    restricted = types.ModuleType('restricted_pickle')
    restricted.Unpickler = Unpickler
    restricted.load = lambda file, **kwargs: Unpickler(file, **kwargs).load()
    return torch.load(path, map_location='cpu', pickle_module=restricted, weights_only=False)


def is_compiling() -> bool:
    """Whether ``torch.compile`` is tracing, which ``torch.compiler`` tells since torch 2.3."""
    import torch
    if hasattr(torch.compiler, 'is_compiling'):
        return torch.compiler.is_compiling()
    import torch._dynamo
    return torch._dynamo.is_compiling()


def fit_optimizer_to_torch(cfg) -> None:
    """Takes ``fused`` from a config's optimiser where torch would refuse it: of RMSprop, or on CPUs, before torch 2.4."""
    import torch
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    kind = getattr(torch.optim, str(optimizer.get('type')), None)
    if kind and 'fused' not in inspect.signature(kind).parameters:
        optimizer.pop('fused', None)
    elif optimizer.get('fused') and not torch.cuda.is_available() and torch_before('2.4'):
        optimizer.fused = False


def start_cpu_processes(cfg) -> None:
    """Joins torchrun's processes on a machine without a GPU, with gloo; MMEngine 0.10 calls CUDA there.

    Args:
        cfg: MMEngine's config, whose ``model_wrapper_cfg`` is set so that the runner gives no GPU's number to its wrapper.
    """
    import torch
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group('gloo')
        atexit.register(_end_cpu_processes)
    cfg.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel',
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False),
        device_ids=None)


def _end_cpu_processes() -> None:
    """Ends gloo's threads while Python still runs.

    One that lets go of its last tensor when Python is gone ends the process by SIGABRT, after a run that succeeded
    (pytorch/pytorch#190489).
    """
    import torch
    from torch.utils.data import _utils
    if not torch.distributed.is_initialized():
        return
    # the threads end with the last who holds the group, and that is the runner's wrapper of the model: in a cycle, or in a traceback's frames
    for name in ('last_exc', 'last_value', 'last_traceback'):
        vars(sys).pop(name, None)
    _utils._set_python_exit_flag()  # else a loader that is collected waits 5 s for each of its workers
    gc.collect()
    torch.distributed.destroy_process_group()


def describe() -> 'collections.OrderedDict[str, str]':
    """What a bug report needs: versions, slim or full, stand-ins and devices, as text by heading."""
    import platform
    from importlib import metadata

    import torch

    from hg_plugin import __version__

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
