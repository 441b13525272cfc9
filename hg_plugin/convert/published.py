"""Convert checkpoints of published stacked hourglass networks to this package."""

import itertools
import os.path as osp
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from hg_plugin import __version__
from hg_plugin.models import StackedHourglass
from hg_plugin.utils.checkpoint import misfits, read_checkpoint, save, unusable, weights_of
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write

from .families import DEPTH, FAMILIES, HRNET_KEYS, IMAGENET, NEWELL, NORMALIZATIONS, Family
from .torch7 import read_torch7


class Network(NamedTuple):
    """A network read from a checkpoint: arguments and state dict of a :class:`StackedHourglass`.

    ``guessed``: nothing in the checkpoint tells how images were normalized.
    """

    family: Family
    arguments: dict
    tensors: dict[str, Tensor]
    guessed: bool = False


def convert_checkpoint(
    source: str,
    out: str,
    *,
    config_out: str | None = None,
    trust: bool = False,
    normalization: str | None = None,
) -> str:
    """Convert a published checkpoint to one of this package with a config.

    Args:
        source: Checkpoint of a code base in ``FAMILIES`` or a fork of it, or of Newell's Torch7 code.
        out: Checkpoint to write.
        config_out: Config to write, a .py file. Defaults to ``out`` with suffix .py.
        trust: Also read files that can run code, see :func:`read_checkpoint`. Defaults to False.
        normalization: What images were normalized with in training, one of ``NORMALIZATIONS``. Defaults
            to None: that of the code base, or ImageNet's for a fork with HRNet's trainer.

    Returns:
        One line about the network and the files.

    Raises:
        InputError: If a file cannot be read or written, is of another network, or lacks tensors or has more.
    """
    if normalization and normalization not in NORMALIZATIONS:
        known = ', '.join(NORMALIZATIONS)
        raise InputError(f'{normalization} is no code base that is known; give one of {known}.')
    config_out = config_out or f'{osp.splitext(out)[0]}.py'
    if len({*map(osp.realpath, (source, out, config_out))}) < 3:
        raise InputError(f'{source}, {out} and {config_out} must be different files; choose other names.')
    network = read_network(source, trust)
    if normalization:
        chosen = IMAGENET if normalization == 'imagenet' else vars(FAMILIES[normalization])
        family = replace(network.family, mean=chosen['mean'], std=chosen['std'])
        network = network._replace(family=family, guessed=False)
    arguments, title = network.arguments, network.family.title
    tensors = {f'backbone.{name}': tensor.clone() for name, tensor in network.tensors.items()}
    meta = dict(hg_plugin_version=__version__, converted_from=osp.basename(source), origin=title)
    with atomic_write(config_out) as config, atomic_write(out) as checkpoint:
        config.write(_config(network, source).encode())
        save(dict(state_dict=tensors, meta=meta), checkpoint)
    stacks, keypoints = arguments['num_stacks'], arguments['num_keypoints']
    parameters = [tensor for name, tensor in tensors.items() if name.endswith(('weight', 'bias'))]
    return (
        f'{title}: {stacks} stack{"s" * (stacks > 1)}, {keypoints} keypoints, '
        f'{sum(tensor.numel() for tensor in parameters):,} parameters -> {out}, {config_out}'
        + '; the image normalization is a guess, because forks differ: test it, or give another'
        * network.guessed
    )


def read_network(path: str, trust: bool = False) -> Network:
    """Read a checkpoint of a code base in ``FAMILIES`` or of Newell's Torch7 code.

    Args:
        path: The file.
        trust: See :func:`read_checkpoint`. Defaults to False.

    Raises:
        InputError: If the file cannot be read, is of another network, or tensors are missing or left over.
    """
    if path.endswith('.t7'):
        return Network(NEWELL, *read_torch7(path))
    content = read_checkpoint(path, trust)
    weights = weights_of(content, path)
    # without what DataParallel and Princeton's trainer put before the names
    tensors = {re.sub(r'^(model\.)?(module\.)?', '', name): tensor for name, tensor in weights.items()}
    for family in FAMILIES.values():
        if {family.rename(f'scores.0.{tensor}') for tensor in ('weight', 'bias')} & tensors.keys():
            break
    else:
        raise InputError(
            f'{path} is of no known stacked hourglass network: it holds {", ".join([*weights][:3])}; known '
            f"are {', '.join(family.title for family in FAMILIES.values())} and Newell's Torch7 files."
        )
    guessed = family is FAMILIES['bearpaw'] and 'state_dict' not in content
    if family is FAMILIES['bearpaw'] and HRNET_KEYS & content.keys():
        family = replace(family, title="a fork of bearpaw's pytorch-pose with HRNet's trainer", **IMAGENET)
    try:
        return Network(family, *_fit(tensors, family), guessed)
    except (LookupError, ValueError) as error:
        raise InputError(
            f"{path} is not a network of {family.title} as in the paper's second version: "
            f'{str(error).rstrip(".")}; give another file.'
        ) from error


def _fit(found: Mapping[str, Tensor], family: Family) -> tuple[dict, dict[str, Tensor]]:
    """Return arguments and state dict of the :class:`StackedHourglass` with these tensors of a code base."""
    arguments = _arguments(found, family)
    with torch.device('meta'):
        model = StackedHourglass(**arguments)
    own = model.state_dict()
    expected = {
        family.rename(name): torch.empty((), dtype=tensor.dtype).expand(tensor.shape)
        for name, tensor in own.items()
    }
    # Princeton's code keeps skip layers that it does not use
    found = {name: tensor for name, tensor in found.items() if name in expected or '.skip_layer.' not in name}
    # torch before 0.4.1 did not count batches
    optional = {name for name in expected if name.endswith('num_batches_tracked')}
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    if problems := misfits(found, shapes, optional) or unusable(found, expected):
        raise ValueError('; '.join(problems))
    return arguments, {name: found.get(their, torch.tensor(0)) for name, their in zip(own, expected)}


def _arguments(tensors: Mapping[str, Tensor], family: Family) -> dict:
    """Return the arguments of :class:`StackedHourglass` that names and shapes tell."""

    def count(template):
        # any of several tensors will do: a missing tensor must be reported, not make the network smaller
        endings = ('weight', 'bias', 'norm1.weight', 'conv1.weight', 'conv3.weight')
        for number in itertools.count():
            module = template.format(number)
            if not any(family.rename(f'{module}.{ending}') in tensors for ending in endings):
                return number

    def width(module):
        name = family.rename(f'{module}.weight')
        if name not in tensors:
            raise LookupError(f'{name} is missing')
        return (*tensors[name].shape, 0)[0]

    behind_pooling = [f'stem_residuals.{index}.conv3' for index in range(count('stem_residuals.{}'))]
    stem_channels = tuple(map(width, ['stem_conv.0', 'stem_conv.3.0.conv3', *behind_pooling]))
    return dict(
        num_stacks=count('scores.{}'),
        num_keypoints=width('scores.0'),
        depth=DEPTH,
        channels=stem_channels[-1],
        num_blocks=(count('hourglasses.0.down.{}'), count('hourglasses.0.up.{}')),
        stem_channels=stem_channels,
    )


def _config(network: Network, source: str) -> str:
    """Return the text of a config on top of this package's."""
    arguments = network.arguments
    num_keypoints = arguments['num_keypoints']
    note = f"""
# The network has {num_keypoints} keypoints, but the dataset of the config below is MPII with 16: before
# training, testing or drawing, set the dataset in all three loaders, and its evaluator."""
    backbone = ',\n        '.join(f'{key}={value!r}' for key, value in arguments.items())
    mean, std = (
        [round(255.0 * value, 4) for value in values] for values in (network.family.mean, network.family.std)
    )
    guess = '\n# How images were normalized is a guess: forks of this code base differ.'
    notes = note * (num_keypoints != 16) + guess * network.guessed
    return f"""\
# Made from {osp.basename(source)!r}, a checkpoint of {network.family.title}.{notes}
_base_ = ['hg_plugin::hg_2stack_mpii.py']

model = dict(
    data_preprocessor=dict(mean={mean}, std={std}, bgr_to_rgb=True),
    backbone=dict(
        {backbone}))
"""
