"""Read and write the weights of a checkpoint, and check that they fit a model."""

import hashlib
import io
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from hg_plugin.compat.torch import load_weights_only

from .errors import InputError
from .files import atomic_write
from .weights import checkpoint_path

# lowest score of a keypoint that is drawn, where no test has measured a better one
KPT_THR = 0.3


def read_checkpoint(path: str, trust: bool = False) -> dict:
    """Read a checkpoint to the CPU.

    Args:
        path: A file that ``torch.save`` wrote, or ``hg_plugin::NAME`` for a network of the package.
        trust: Also run code that the file may contain. Defaults to False: read only tensors, containers and
            MMEngine's logs.

    Raises:
        InputError: The file is missing, damaged or no checkpoint, or contains code.
    """
    path = str(checkpoint_path(path))
    try:
        broken = _broken_record(path)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            content = torch.load(path, 'cpu', weights_only=False) if trust else load_weights_only(path)
        if isinstance(content, torch.jit.ScriptModule):
            raise ValueError('a TorchScript program')
    except Exception as error:  # torch raises anything for a damaged file: OSError, EOFError, KeyError, ...
        raise InputError(f'The checkpoint {path} {_explain(error, path)}.') from error
    if broken:
        raise InputError(f'The checkpoint {path} is damaged: {broken} has a wrong checksum; get it again.')
    if not isinstance(content, dict):
        raise InputError(
            f'{path} is not a checkpoint: it holds a {type(content).__name__}; give another file.'
        )
    return content


def _broken_record(path: str) -> str | None:
    """The first record of a checkpoint that has changed since it was written, which ``torch.load`` loads."""
    if not zipfile.is_zipfile(path):  # older than torch 1.6
        return None
    with zipfile.ZipFile(path) as file:
        # torch.serialization.set_crc32_options(False) writes zeros
        return file.testzip() if any(record.CRC for record in file.infolist()) else None


def _explain(error: Exception, path: str) -> str:
    """What an error of ``torch.load`` means; its own message is long, and may advise to run the code."""
    if isinstance(error, OSError) and error.strerror:
        return f'cannot be read: {error.strerror}; give the path of a .pth file'
    if isinstance(error, (ImportError, AttributeError)):
        return f'needs code that this Python does not have ({error}); save its state_dict alone where it is'
    if 'TorchScript' in str(error):
        return 'is a TorchScript program; give the weights that it was made from'
    if isinstance(error, pickle.UnpicklingError):
        forbidden = re.search(r'(?:GLOBAL|Unsupported class) (\S+)', str(error))
        if forbidden or zipfile.is_zipfile(path):
            held = f'more than weights, such as {forbidden[1]},' if forbidden else 'more than weights'
            advice = 'if you trust its source, read it with trust=True of convert_checkpoint'
            return f'holds {held} and could run code when it is loaded; {advice}'
    return 'is not a checkpoint, or is truncated; get it again'


def weights_of(content: dict, path: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint or bare state dict, by names without the prefix of a distributed model.

    Raises:
        InputError: There are none.
    """
    state = content.get('state_dict', content)
    weights = {
        name.removeprefix('module.'): tensor
        for name, tensor in (state.items() if isinstance(state, dict) else ())
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }
    if not weights:
        raise InputError(f'{path} is not a checkpoint: it holds no weights by name; give another file.')
    return weights


def check_weights(model: nn.Module, weights: Mapping[str, Tensor], path: str, partly: bool = False) -> None:
    """Check that weights fit a model exactly, and are finite, unlike those of a diverged training.

    Args:
        model: The model, which may be in a distributed wrapper.
        weights: What :func:`weights_of` returns.
        path: The checkpoint, for messages.
        partly: Check only that any weight fits. Defaults to False.

    Raises:
        InputError: They do not fit. The message names the first tensors.
    """
    own = weights_of(model.state_dict(), path)
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if partly:
        if not any(tensor.shape == shapes.get(name) for name, tensor in weights.items()):
            raise InputError(f"No weight in {path} (load_from) fits the config's model; give another one.")
        return
    if problems := misfits(weights, shapes) or unusable(weights, own):
        raise InputError(
            f"The checkpoint {path} does not fit the config's model: {'; '.join(problems)}; "
            'use the config that it was trained with.'
        )


def unusable(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Which weights, of the right shapes, have values that a model's own cannot be replaced by, in words."""
    odd = [
        name
        for name, tensor in weights.items()
        if tensor.is_meta
        or tensor.layout != torch.strided
        or (tensor.itemsize == 1 and tensor.dtype != own[name].dtype)
        or tensor.is_floating_point() != own[name].is_floating_point()
    ]
    return name_some('is of another type, quantized, sparse or without values', odd) or name_some(
        'is not finite', not_finite(weights)
    )


def dataset_meta_of(content: dict, path: str) -> dict | None:
    """The metainfo of the dataset that the network was trained on, or None where a checkpoint has none.

    Raises:
        InputError: It is damaged.
    """
    meta = content.get('meta')
    meta = meta.get('dataset_meta') if isinstance(meta, dict) else None
    if not isinstance(meta, dict) or 'num_keypoints' not in meta:
        return None
    try:
        number, links = meta['num_keypoints'], np.reshape(meta['skeleton_links'], (-1, 2)).astype(int)
        names = [meta['keypoint_id2name'][index] for index in range(number)]
        colors = (meta['keypoint_colors'], number), (meta['skeleton_link_colors'], len(links))
        whole = (
            sorted(meta['flip_indices']) == [*range(number)]
            and [meta['keypoint_name2id'][name] for name in names] == [*range(number)]
            and {*meta.get('unannotated_keypoints', ())} <= {*names}
            and ((0 <= links) & (links < number)).all()
            and all(np.reshape(color, (-1, 3)).astype(np.uint8).shape[0] == count for color, count in colors)
        )
    except (LookupError, TypeError, ValueError, OverflowError):
        whole = False
    if not whole:
        raise InputError(f'{path} is damaged: its meta.dataset_meta describes no keypoints; get it again.')
    return meta


def save(content: dict, file: BinaryIO) -> None:
    """``torch.save`` to a file of :func:`atomic_write`, whose errors it would turn into RuntimeErrors."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    file.write(buffer.getbuffer())


def write_kpt_thr(checkpoint: str, kpt_thr: float) -> str:
    """Write the score that nine of ten right keypoints reach to NAME.scores.json beside NAME.pth.

    Returns:
        Its path.

    Raises:
        InputError: It cannot be written.
    """
    path = Path(checkpoint).with_suffix('.scores.json')
    with atomic_write(path) as file:
        file.write(json.dumps(dict(kpt_thr=kpt_thr, checkpoint=digest(checkpoint))).encode())
    return str(path)


def kpt_thr_of(checkpoint: str) -> float:
    """What :func:`write_kpt_thr` wrote for these weights; 0.3 where there is none."""
    try:
        found = json.loads(Path(checkpoint).with_suffix('.scores.json').read_bytes())
        return float(found['kpt_thr']) if found['checkpoint'] == digest(checkpoint) else KPT_THR
    except (OSError, ValueError, LookupError, TypeError):
        return KPT_THR


def digest(path: str) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def not_finite(weights: Mapping[str, Tensor]) -> list[str]:
    """The names of weights with values that are NaN or infinite."""
    return [
        name
        for name, tensor in weights.items()
        # a view that repeats its values could have any size
        if tensor.is_floating_point() and tensor.nbytes <= tensor.untyped_storage().nbytes()
        if not tensor.float().isfinite().all()
    ]


def misfits(weights: Mapping[str, Tensor], expected: Mapping[str, tuple], optional=frozenset()) -> list[str]:
    """How weights differ from expected shapes, in words; those in ``optional`` may be absent."""
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    others = [
        f'{name} {shapes[name]} for {shape}'
        for name, shape in expected.items()
        if shapes.get(name, shape) != shape
    ]
    return [
        *name_some('is missing', [name for name in expected if name not in shapes and name not in optional]),
        *name_some('is left over', [name for name in shapes if name not in expected]),
        *name_some('has another shape', others),
    ]


def name_some(what: str, names: list[str], most: int = 3) -> list[str]:
    """``['a, b, c and 2 more are missing']`` for five names and 'is missing'; [] for none."""
    if not names:
        return []
    more = f' and {len(names) - most} more' if len(names) > most else ''
    what = what if len(names) == 1 else what.replace('is ', 'are ').replace('has ', 'have ')
    return [f'{", ".join(names[:most])}{more} {what}']
