"""Weights from a file into a model, all of them or none."""

import os.path as osp
import pickle
import re
import warnings
import zipfile

import torch
from torch import nn

from hg_plugin.compat.torch import load_weights_only

from .errors import InputError


def read_checkpoint(path: str, trust: bool = False) -> dict:
    """A checkpoint's content, on the CPU.

    Args:
        path: A file that ``torch.save`` wrote.
        trust: Also run the code that a pickle may bring. Defaults to False: only tensors, containers and MMEngine's logs are read.

    Raises:
        InputError: for a file that is missing, cut off, no checkpoint, or that wants to run code.
    """
    if not osp.isfile(path):
        raise InputError(
            f'The checkpoint {path} {"is a folder" if osp.isdir(path) else "does not exist"}; give the path of a .pth file.'
        )
    try:
        open(path, 'rb').close()
    except OSError as error:
        raise InputError(f'The checkpoint {path} cannot be read: {error.strerror}.') from error
    broken = f'{path} is no checkpoint or was cut off; get it again.'
    torchscript = (
        f'{path} is a TorchScript program, and no checkpoint; give the weights that it was made from.'
    )
    # what torch says runs to several sentences, which advise to do other things than a user of the tools can
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            content = (
                torch.load(path, map_location='cpu', weights_only=False) if trust else load_weights_only(path)
            )
    except (ImportError, AttributeError) as error:
        raise InputError(
            f'{path} was saved together with code that this Python does not have ({error}); '
            'save its state_dict alone where that code is.'
        ) from error
    except pickle.UnpicklingError as error:
        forbidden = re.search(r'(?:GLOBAL|Unsupported class) (\S+)', str(error))
        if not forbidden and not zipfile.is_zipfile(path):
            raise InputError(broken) from error
        raise InputError(
            f'The checkpoint {path} holds more than weights{f", such as {forbidden[1]}," if forbidden else ""} and could '
            'run code when it is loaded; if you trust where it came from, tools/convert_checkpoint.py --trust reads it.'
        ) from error
    except (
        Exception
    ) as error:  # torch raises anything on a broken file: an OSError, an EOFError, a KeyError ...
        if 'TorchScript' in str(error):
            raise InputError(torchscript) from error
        raise InputError(broken) from error
    if isinstance(content, torch.jit.ScriptModule):
        raise InputError(torchscript)
    if not isinstance(content, dict):
        raise InputError(
            f'{path} is no checkpoint: it holds a {type(content).__name__} instead of named weights; give another file.'
        )
    return content


def weights_of(content: dict, path: str) -> dict:
    """The state dict in a checkpoint, or that it is.

    Raises:
        InputError: where there is none.
    """
    state = content.get('state_dict', content)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise InputError(f'{path} is no checkpoint: it holds no weights by name; give another file.')
    return state


def check_weights(model: nn.Module, state_dict: dict, path: str) -> None:
    """Raises an :class:`InputError` that names the first tensors where ``state_dict`` does not fit ``model`` exactly.

    Weights that are not finite, as a training leaves them that diverged, fit no model, nor do quantized or sparse ones.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {
        name[len('module.') :] if name.startswith('module.') else name: tuple(tensor.shape)
        for name, tensor in state_dict.items()
        if isinstance(tensor, torch.Tensor)
    }
    problems = name_some('is missing', [name for name in expected if name not in found])
    problems += name_some('is left over', [name for name in found if name not in expected])
    problems += name_some(
        'has another shape',
        [
            f'{name} {found[name]} for {expected[name]}'
            for name in expected
            if name in found and found[name] != expected[name]
        ],
    )
    tensors = {name: tensor for name, tensor in state_dict.items() if isinstance(tensor, torch.Tensor)}
    odd = [
        name
        for name, tensor in tensors.items()
        if tensor.is_quantized or tensor.is_meta or tensor.layout != torch.strided
    ]
    problems += name_some('is quantized, sparse or without values', odd)
    problems += name_some(
        'is not finite',
        [name for name, tensor in tensors.items() if name not in odd and not tensor.isfinite().all()],
    )
    if problems:
        raise InputError(
            f"The checkpoint {path} does not fit the config's model: {'; '.join(problems)}; "
            'use the config that it was trained with.'
        )


def name_some(what: str, names: list[str], most: int = 3) -> list[str]:
    if not names:
        return []
    more = f' and {len(names) - most} more' if len(names) > most else ''
    what = what if len(names) == 1 else what.replace('is ', 'are ').replace('has ', 'have ')
    return [f'{", ".join(names[:most])}{more} {what}']
