"""Checkpoints of published stacked hourglass networks, made ours, and ours made theirs."""

import io
import os.path as osp
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from hg_plugin import __version__
from hg_plugin.models import StackedHourglass
from hg_plugin.utils.checkpoint import name_some, read_checkpoint
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write

from .torch7 import is_torch7, read_torch7

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Family:
    """A published code base that keeps checkpoints of PyTorch.

    Args:
        title: What a reader knows it by.
        prefix: What its own checkpoints put before every name.
        rename: A tensor's name in :class:`StackedHourglass`, and the depth of its hourglasses -> its name
            there, without prefix. This is all there is of a mapping; the way back is its inverse.
        mean: What it takes off red, green and blue; a pixel's values run from 0 to 1 there.
        widening: Of the two residuals behind the stem's pooling, the first has this many times the channels
            of the one before them.
        most_blocks: Its largest ``num_blocks``.
        optimizer: Makes a new optimizer like that of its training code, which its own programs want in a
            checkpoint.
        unused: Shapes of the tensors that it uses -> shapes of those that it keeps and never uses, by name.
    """

    title: str
    prefix: str
    rename: Callable[[str, int], str]
    mean: tuple[float, float, float]
    widening: int
    most_blocks: float
    optimizer: Callable[[Iterable], torch.optim.Optimizer]
    unused: Callable[[Mapping[str, Shape]], dict[str, Shape]] = lambda shapes: {}

    def builds(self, stem_channels: tuple[int, ...], num_blocks: tuple[int, int]) -> bool:
        """Whether its code has networks with these arguments of :class:`StackedHourglass`."""
        before, after = num_blocks
        widens = len(stem_channels) == 4 and stem_channels[2] == self.widening * stem_channels[1]
        return widens and before == after <= self.most_blocks


def _rewrite(name: str, rules) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def princeton_name(name: str, depth: int) -> str:
    return _rewrite(
        name,
        [
            (r'^stem_conv\.0\.', 'pre.0.conv.'),
            (r'^stem_conv\.1\.', 'pre.0.bn.'),
            (r'^stem_conv\.3\.0\.', 'pre.1.'),
            (r'^stem_residuals\.0\.', 'pre.3.'),  # pre.2 is the pooling
            (r'^stem_residuals\.1\.', 'pre.4.'),
            (r'^hourglasses\.(\d+)\.', r'hgs.\1.0.'),
            (r'\.inner(\.0)?', '.low2'),
            (r'\.skip\.0\.', '.up1.'),
            (r'\.down\.0\.', '.low1.'),
            (r'\.up\.0\.', '.low3.'),
            (r'^features\.(\d+)\.0\.0\.', r'features.\1.0.'),
            (r'^features\.(\d+)\.1\.0\.', r'features.\1.1.conv.'),
            (r'^features\.(\d+)\.1\.1\.', r'features.\1.1.bn.'),
            (r'^scores\.(\d+)\.', r'outs.\1.conv.'),
            (r'^joins\.(\d+)\.from_features\.', r'merge_features.\1.conv.conv.'),
            (r'^joins\.(\d+)\.from_heatmaps\.', r'merge_preds.\1.conv.conv.'),
            # inside a residual
            (r'\.norm(\d)\.', r'.bn\1.'),
            (r'\.conv(\d)\.', r'.conv\1.conv.'),
            (r'\.skip\.', '.skip_layer.conv.'),
        ],
    )


def bearpaw_name(name: str, depth: int) -> str:
    def branch(match):
        """Levels count from the innermost, whose fourth branch is the residual between the ways down and
        up."""
        stack, inner, kind, block = match.groups()
        level = max(depth - 1 - inner.count('inner'), 0)
        return f'hg.{stack}.hg.{level}.{("skip", "down", "up", None).index(kind)}.{block}.'

    return _rewrite(
        name,
        [
            (r'^stem_conv\.0\.', 'conv1.'),
            (r'^stem_conv\.1\.', 'bn1.'),
            (r'^stem_conv\.3\.0\.', 'layer1.0.'),
            (r'^stem_residuals\.0\.', 'layer2.0.'),
            (r'^stem_residuals\.1\.', 'layer3.0.'),
            (r'^hourglasses\.(\d+)\.((?:inner\.)*)(?:(skip|down|up)\.)?(\d+)\.', branch),
            (r'^features\.(\d+)\.0\.', r'res.\1.'),
            (r'^features\.(\d+)\.1\.', r'fc.\1.'),
            (r'^scores\.', 'score.'),
            (r'^joins\.(\d+)\.from_features\.', r'fc_.\1.'),
            (r'^joins\.(\d+)\.from_heatmaps\.', r'score_.\1.'),
            # inside a residual
            (r'\.norm(\d)\.', r'.bn\1.'),
            (r'\.skip\.', '.downsample.0.'),
        ],
    )


def princeton_unused(shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The skip layers of residuals that keep the number of channels."""
    skips = {
        name.replace('.conv3.', '.skip_layer.'): shape for name, shape in shapes.items() if '.conv3.' in name
    }
    return {
        name: shape[:1] * 2 + shape[2:] if len(shape) > 1 else shape
        for name, shape in skips.items()
        if name not in shapes
    }


FAMILIES = dict(
    princeton=Family(
        title="Princeton's PyTorch code",
        prefix='model.module.',
        rename=princeton_name,
        mean=(0, 0, 0),
        widening=1,
        most_blocks=1,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
        unused=princeton_unused,
    ),
    bearpaw=Family(
        title="bearpaw's pytorch-pose",
        prefix='module.',
        rename=bearpaw_name,
        mean=(0.4404, 0.4440, 0.4327),
        widening=2,
        most_blocks=float('inf'),
        optimizer=lambda parameters: torch.optim.RMSprop(parameters, lr=2.5e-4),
    ),
)


class Network(NamedTuple):
    """``title`` and ``mean`` of a :class:`Family`, arguments and state dict of a
    :class:`StackedHourglass`."""

    title: str
    mean: tuple[float, float, float]
    arguments: dict
    tensors: dict[str, Tensor]


def read_published(path: str, trust: bool = False) -> Network:
    """Reads a published checkpoint of a stacked hourglass network.

    Args:
        path: A file of Princeton's PyTorch code, of bearpaw's pytorch-pose or a fork, or of Newell's Torch7
            code.
        trust: See :func:`read_checkpoint`.

    Raises:
        InputError: for a file that cannot be read, of another network, or with tensors missing or left over.
    """
    if is_torch7(path):
        return Network("Newell's Torch7 code", (0, 0, 0), *read_torch7(path))
    found = _state_dict(path, trust)
    if any(name.startswith('backbone.') for name in found):
        raise InputError(
            f'{path} has the names of this package already; give a published checkpoint, '
            'or --to for the other direction.'
        )
    for family in FAMILIES.values():
        if not set(found).isdisjoint(family.rename(f'scores.0.{tensor}', 1) for tensor in ('weight', 'bias')):
            break
    else:
        raise InputError(
            f'{path} is of no stacked hourglass network that is known: its tensors are {", ".join([*found][:3])} ...; '
            f"known are {', '.join(family.title for family in FAMILIES.values())} and Newell's Torch7 files."
        )
    arguments = _arguments(found, family.rename, path)
    wanted = _shapes(arguments, path)
    ours = {family.rename(name, arguments['depth']): name for name in wanted}
    expected = {name: wanted[our] for name, our in ours.items()}
    unused = family.unused(expected)
    # what torch before 0.4.1 did not count, and what is not used anyway
    optional = {*unused, *(name for name in expected if name.endswith('num_batches_tracked'))}
    _check(found, {**expected, **unused}, optional, f'{path} looks like a checkpoint of {family.title}, but')
    tensors = {our: found[name] if name in found else torch.tensor(0) for name, our in ours.items()}
    return Network(family.title, family.mean, arguments, tensors)


def import_checkpoint(source: str, out: str, config_out: str, trust: bool = False) -> str:
    """Writes a published network as a checkpoint and a config of this package, both or none.

    Args:
        source: See :func:`read_published`.
        out: The checkpoint to write, with the names of MMPose's ``TopdownPoseEstimator``.
        config_out: The config to write, a .py file.
        trust: See :func:`read_checkpoint`.

    Returns:
        One line about the network.

    Raises:
        InputError: as in :func:`read_published`, and where something cannot be written.
    """
    if not config_out.endswith('.py'):
        raise InputError(
            f'The config {config_out} must end in .py, or no tool can read it; choose another name.'
        )
    _check_writable(out, config_out, source)
    network = read_published(source, trust)
    content = dict(
        state_dict={f'backbone.{name}': tensor.clone() for name, tensor in network.tensors.items()},
        meta=dict(hg_plugin_version=__version__, converted_from=osp.basename(source), origin=network.title),
    )
    with atomic_write(config_out) as config_file, atomic_write(out) as file:
        config_file.write(_config(network, source).encode())
        _save(content, file)
    return _describe(network.title, network.arguments, network.tensors)


def export_checkpoint(source: str, out: str, to: str, trust: bool = False) -> str:
    """Writes a checkpoint of this package as one of a published code base.

    The skip layers that Princeton's code never uses are written as zeros, its optimizer as new and its epoch
    as 0.

    Args:
        source: A checkpoint of this package.
        out: The file to write.
        to: A key of :data:`FAMILIES`.
        trust: See :func:`read_checkpoint`.

    Returns:
        One line about the network.

    Raises:
        InputError: for a file that cannot be read or written, and for a network that the code base cannot
            build.
    """
    family = FAMILIES[to]
    _check_writable(out, source)
    state = _state_dict(source, trust)
    found = {name.removeprefix('backbone.'): tensor for name, tensor in state.items()}
    if 'scores.0.weight' not in found:
        raise InputError(
            f'{source} is no checkpoint of this package: its tensors are called {", ".join([*state][:3])}; '
            '--to converts what tools/train.py and tools/convert_checkpoint.py write.'
        )
    arguments = _arguments(found, lambda name, depth: name, source)
    wanted = _shapes(arguments, source)
    _check(
        found,
        wanted,
        set(),
        f"{source} does not fit the network of {family.title}, the paper's second version:",
    )
    theirs = {name: family.rename(name, arguments['depth']) for name in wanted}
    stem, blocks = arguments['stem_channels'], arguments['num_blocks']
    if not family.builds(stem, blocks):
        others = [key for key, other in FAMILIES.items() if other.builds(stem, blocks)]
        raise InputError(
            f'{source} has stem_channels={stem} and num_blocks={blocks}, which {family.title} cannot '
            'build; ' + (f'choose --to {others[0]}.' if others else 'no other known code base can.')
        )
    tensors = {theirs[name]: found[name].clone() for name in wanted}
    for name, shape in family.unused({theirs[name]: shape for name, shape in wanted.items()}).items():
        tensors[name] = torch.zeros(shape)
    parameters = [tensor for name, tensor in tensors.items() if name.endswith(('weight', 'bias'))]
    content = dict(
        epoch=0,
        best_acc=0.0,
        state_dict={family.prefix + name: tensor for name, tensor in tensors.items()},
        optimizer=family.optimizer(parameters).state_dict(),
    )
    with atomic_write(out) as file:
        _save(content, file)
    return _describe(f'to {family.title}', arguments, found)


def _state_dict(path: str, trust: bool) -> dict[str, Tensor]:
    """A checkpoint's tensors, by names without what DataParallel and Princeton's trainer put before them."""
    content = read_checkpoint(path, trust)
    state = content.get('state_dict', content) if isinstance(content, Mapping) else None
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(tensor, Tensor) for tensor in state.values())
    ):
        held = f'a {type(content).__name__}'
        if isinstance(content, Mapping) and content:
            held += f' of {", ".join(map(str, [*content][:3]))}'
        raise InputError(f'{path} holds no state dict, but {held}; give a checkpoint or a bare state dict.')
    return {re.sub(r'^(model\.)?(module\.)?', '', str(name)): tensor for name, tensor in state.items()}


def _arguments(tensors: Mapping[str, Tensor], rename: Callable[[str, int], str], path: str) -> dict:
    """What :class:`StackedHourglass` is to be called with for these tensors, as far as names and shapes
    tell."""
    depth = 0

    def has(module):
        """Whether any of some tensors is there: a lost one is to be missed, not to make a smaller network."""
        return any(
            rename(f'{module}.{tensor}', depth) in tensors
            for tensor in ('weight', 'bias', 'norm1.weight', 'conv1.weight', 'conv3.weight')
        )

    def count(template):
        number = 0
        while has(template.format(number)):
            number += 1
        return number

    def width(module):
        name = rename(f'{module}.weight', depth)
        if name not in tensors:
            raise InputError(f'{path}: the tensor {name} is missing; get the file again.')
        return (*tensors[name].shape, 0)[0]

    # One family counts the levels from outside and one from inside: an hourglass of this depth has both ends.
    for depth in range(16, 0, -1):
        if has('hourglasses.0.down.0') and has(f'hourglasses.0.{"inner." * depth}0'):
            break
    else:
        raise InputError(
            f'{path} has the names of a stacked hourglass network, but no hourglass; get the file again.'
        )
    behind_pooling = [f'stem_residuals.{index}.conv3' for index in range(count('stem_residuals.{}'))]
    stem_channels = tuple(map(width, ['stem_conv.0', 'stem_conv.3.0.conv3', *behind_pooling]))
    return dict(
        num_stacks=count('scores.{}'),
        num_keypoints=width('scores.0'),
        depth=depth,
        channels=stem_channels[-1],
        num_blocks=(count('hourglasses.0.down.{}'), count('hourglasses.0.up.{}')),
        stem_channels=stem_channels,
    )


def _shapes(arguments: dict, path: str) -> dict[str, Shape]:
    """The shapes of :class:`StackedHourglass`'s tensors, by name."""
    try:
        with torch.device('meta'):
            model = StackedHourglass(**arguments)
    except InputError as error:
        raise InputError(f'{path} is of a network that cannot be built: {error}') from error
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _check(found: Mapping[str, Tensor], expected: Mapping[str, Shape], optional: set, what: str) -> None:
    problems = name_some(
        'is missing', [name for name in expected if name not in found and name not in optional]
    )
    problems += name_some('is left over', [name for name in found if name not in expected])
    problems += name_some(
        'has another shape',
        [
            f'{name} {tuple(found[name].shape)} for {shape}'
            for name, shape in expected.items()
            if name in found and tuple(found[name].shape) != shape
        ],
    )
    if problems:
        raise InputError(f'{what} {"; ".join(problems)}, so nothing was written.')


def _check_writable(*paths: str) -> None:
    """Raises where writing is bound to fail: of two files, the second could fail when the first is there
    already."""
    if len({osp.abspath(path) for path in paths}) < len(paths):
        raise InputError(f'{paths[0]} would be two of the files to read and to write; choose other names.')
    for path in paths:
        if osp.isdir(path):
            raise InputError(f'{path} is a folder; give the name of the file to write.')


def _save(content: dict, file) -> None:
    """``torch.save`` to a file whose errors stay the OSErrors that they are."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    file.write(buffer.getbuffer())


def _config(network: Network, source: str) -> str:
    """The text of a config on top of this package's."""
    arguments = network.arguments
    num_keypoints = arguments['num_keypoints']
    lines = [
        f'# Made by tools/convert_checkpoint.py from {osp.basename(source)!r}, a checkpoint of {network.title}.'
    ]
    if num_keypoints != 16:
        lines += [
            f'# The network has {num_keypoints} keypoints, but the data set of the config below is MPII with 16:',
            '# before training, testing or drawing, set the data set in all three loaders, and its evaluator.',
        ]
    backbone = ',\n        '.join(f'{key}={value!r}' for key, value in arguments.items())
    mean = [round(255.0 * value, 4) for value in network.mean]
    return '\n'.join(
        [
            *lines,
            "_base_ = ['hg_plugin::hg_2stack_mpii.py']",
            '',
            'model = dict(',
            f'    data_preprocessor=dict(mean={mean}, std=[255.0, 255.0, 255.0], bgr_to_rgb=True),',
            f'    backbone=dict(\n        {backbone}),',
            f'    head=dict(num_stages={arguments["num_stacks"]}, out_channels={num_keypoints}))',
            '',
        ]
    )


def _describe(origin: str, arguments: dict, tensors: Mapping[str, Tensor]) -> str:
    stacks, keypoints = arguments['num_stacks'], arguments['num_keypoints']
    parameters = sum(tensor.numel() for name, tensor in tensors.items() if name.endswith(('weight', 'bias')))
    return f'{origin}: {stacks} stack{"s" * (stacks > 1)}, {keypoints} keypoints, {parameters:,} parameters'
