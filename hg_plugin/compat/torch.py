"""torch from 2.1 on: checkpoints without code, and what older versions lack."""

import inspect
import pickle
import tarfile
import types
from collections import Counter

import torch
from mmengine.utils import digit_version

from .mmengine import logged_scalars


def torch_before(version: str) -> bool:
    """Whether torch is older than ``version``, such as '2.6'. Builds ahead of a release count as the
    release."""
    return digit_version(torch.__version__)[:2] < digit_version(version)[:2]


def allow_mmengine_checkpoints() -> None:
    """Lets ``torch.load(weights_only=True)``, the default since torch 2.6, read what MMEngine logs.

    Before 2.6, MMEngine loads without that restriction; :func:`load_weights_only` has its own.
    """
    if not torch_before('2.6'):
        torch.serialization.add_safe_globals([(value, name) for name, value in logged_scalars().items()])


def load_weights_only(path: str) -> object:
    """``torch.load(weights_only=True)`` to the CPU, with any torch, of files that may hold MMEngine's logs.

    Raises:
        pickle.UnpicklingError: If the file holds anything else. It names what, after the word GLOBAL.
    """
    if not torch_before('2.10'):  # whose restriction can be circumvented (CVE-2026-24747)
        return torch.load(path, map_location='cpu', weights_only=True)
    with open(path, 'rb') as file:
        if not torch.serialization._is_zipfile(file):  # formats older than MMEngine
            if tarfile.is_tarfile(path):  # the oldest, which torch does not restrict
                raise RuntimeError(f'{path} is a tar archive')
            return torch.load(path, map_location='cpu', weights_only=True)
    if torch.serialization._is_torchscript_zip(torch._C.PyTorchFileReader(path)):
        raise RuntimeError(
            f'{path} is a TorchScript program'
        )  # which torch would run in spite of weights_only
    allowed = {
        **torch._weights_only_unpickler._get_allowed_globals(),
        **logged_scalars(),
        **{str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)},
        'torch.device': torch.device,
        'collections.Counter': Counter,
    }

    class Unpickler(pickle._Unpickler):  # type: ignore[name-defined]  # C's does not show what it builds
        dispatch = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

        def find_class(self, module: str, name: str):
            if f'{module}.{name}' not in allowed:
                raise pickle.UnpicklingError(f'GLOBAL {module}.{name} is not allowed')
            return allowed[f'{module}.{name}']

        def load_build(self):
            # attributes of a class or a function would stay after the file was read
            if isinstance(self.stack[-2], (type, types.FunctionType, types.BuiltinFunctionType)):
                raise pickle.UnpicklingError(f'Unsupported attributes of {self.stack[-2]}')
            super().load_build()

        dispatch[pickle.BUILD[0]] = load_build

    def load(file, **kwargs):
        return Unpickler(file, **kwargs).load()

    restricted = types.ModuleType('restricted_pickle')
    vars(restricted).update(Unpickler=Unpickler, load=load)
    return torch.load(path, map_location='cpu', pickle_module=restricted, weights_only=False)


def is_compiling() -> bool:
    """Whether ``torch.compile`` is tracing. ``torch.compiler`` tells since torch 2.3."""
    if hasattr(torch.compiler, 'is_compiling'):
        return torch.compiler.is_compiling()
    from torch import _dynamo

    return _dynamo.is_compiling()


def fit_optimizer_to_torch(cfg) -> None:
    """Removes ``fused`` from a config's optimizer where torch refuses it: RMSprop's, or on CPUs before torch
    2.4."""
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    kind = getattr(torch.optim, str(optimizer.get('type')), None)
    if kind and 'fused' not in inspect.signature(kind).parameters:
        optimizer.pop('fused', None)
    elif optimizer.get('fused') and not torch.cuda.is_available() and torch_before('2.4'):
        optimizer.fused = False
