"""Stacked hourglass networks from Torch7 files (.t7), where nngraph keeps a graph of nn and cudnn modules.

Such a file names no module, and the order in which it lists them is nngraph's affair. So its graph is run on
symbols
instead of pictures, and our network too: two operations are the same where they do the same to the same
inputs.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hg_plugin.models import StackedHourglass
from hg_plugin.utils.errors import InputError

# The numbers of the operations whose results are added up, sorted: neither order nor nesting of additions
# matters.
Value = tuple[int, ...]
TORCH7_MAGIC = tuple(kind.to_bytes(4, 'little') for kind in (3, 4))  # the file is a table or an object
NORM_TENSORS = ('weight', 'bias', 'running_mean', 'running_var')


def is_torch7(path: str) -> bool:
    """Whether a file starts as Torch7's binary files do."""
    try:
        with open(path, 'rb') as file:
            return file.read(4) in TORCH7_MAGIC
    except OSError:
        return False


def read_torch7(path: str) -> tuple[dict, dict[str, Tensor]]:
    """Reads a network that Newell's training code saved; no code in the file is run.

    Args:
        path: A Torch7 file in the binary format of 64-bit machines.

    Returns:
        The arguments of :class:`StackedHourglass` and its state dict.

    Raises:
        InputError: for a file that is cut off or holds anything but a stacked hourglass network, and where
            the package torchfile is missing.
    """
    content = _load(path)
    nothing = (
        f'The Torch7 file {path} holds no stacked hourglass network; give one that the training code saved, '
        'such as final_model.t7.'
    )
    if not hasattr(type(content), 'torch_typename'):
        raise InputError(nothing)
    trace, theirs = Trace(), {}
    try:
        outputs = _Interpreter(trace, theirs, path).run(content, trace.record('image'))
        arguments = _arguments(trace, outputs if isinstance(outputs, list) else [outputs])
        with torch.device('meta'):
            model = StackedHourglass(**arguments).eval()
    except InputError:
        raise
    except (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
        raise InputError(nothing) from error
    ours, our_outputs = _trace_ours(trace, model)
    missing = [name for number, names in ours.items() if number not in theirs for name in names.values()]
    left = [trace.describe(number) for number in theirs if number not in ours]
    if missing or left:
        text = ', '.join(f'{key}={value!r}' for key, value in arguments.items())
        raise InputError(
            f'The Torch7 file {path} comes closest to StackedHourglass({text}), but '
            + '; '.join(
                f'{len(items)} {what} ({", ".join(items[:3])}{", ..." * (len(items) > 3)})'
                for items, what in (
                    (missing, 'of its tensors are missing'),
                    (left, "of the file's modules are left over"),
                )
                if items
            )
            + "; only the networks of Newell's paper can be read."
        )
    if outputs not in (our_outputs, our_outputs[0]):
        raise InputError(
            f'The Torch7 file {path} returns other things than the heatmaps of its stacks, first to last; '
            "only the networks of Newell's paper can be read."
        )
    state = {name: theirs[number][role] for number, names in ours.items() for role, name in names.items()}
    # Torch7 does not count batches
    return arguments, {name: state.get(name, torch.tensor(0)) for name in model.state_dict()}


class Trace:
    """Operations, numbered as they are first done. The same operation on the same inputs gets the same
    number."""

    def __init__(self):
        self.numbers = {}  # (kind, attributes, inputs) -> number

    def record(self, kind: str, *attributes, inputs: tuple[Value, ...] = ()) -> Value:
        return (self.numbers.setdefault((kind, attributes, inputs), len(self.numbers)),)

    def conv(self, x: Value, shape, stride, padding, biased: bool) -> Value:
        return self.record('conv', tuple(shape), tuple(stride), tuple(padding), biased, inputs=(x,))

    def norm(self, x: Value, channels: int, eps: float) -> Value:
        return self.record('norm', channels, eps, inputs=(x,))

    def relu(self, x: Value) -> Value:
        return self.record('relu', inputs=(x,))

    def pool(self, x: Value, size: int, stride: int, padding: int) -> Value:
        return self.record('pool', size, stride, padding, inputs=(x,))

    def upsample(self, x: Value, factor: int) -> Value:
        return self.record('upsample', factor, inputs=(x,))

    def concat(self, values: list[Value], dim: int) -> Value:
        return self.record('concat', dim, inputs=tuple(values))

    def add(self, values: list[Value]) -> Value:
        return tuple(sorted(number for value in values for number in value))

    @property
    def operations(self) -> list:
        return list(self.numbers)

    def describe(self, number: int) -> str:
        kind, attributes, _ = self.operations[number]
        return f'{kind} {"x".join(map(str, np.ravel(attributes[0])))}'


class _Tracer(TorchFunctionMode):
    """Records what a :class:`StackedHourglass` does with tensors whose attribute ``value`` is a
    :data:`Value`.

    Nothing is computed, not even shapes: results are tensors of four axes, and that is all the network asks
    of them.
    """

    def __init__(self, trace: Trace, names: dict[int, str]):
        super().__init__()
        self.trace = trace
        self.names = names  # of tensors, by id
        self.parameters = {}  # number -> role -> name

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        kind = func.__name__
        if kind == 'conv2d':
            x, weight, bias, stride, padding = args[:5]
            value = self.trace.conv(x.value, weight.shape, stride, padding, bias is not None)
            self.parameters[value[0]] = dict(weight=self.names[id(weight)], bias=self.names[id(bias)])
        elif kind == 'batch_norm':
            x, mean, var = args
            value = self.trace.norm(x.value, len(mean), kwargs['eps'])
            tensors = (kwargs['weight'], kwargs['bias'], mean, var)
            self.parameters[value[0]] = {
                role: self.names[id(tensor)] for role, tensor in zip(NORM_TENSORS, tensors)
            }
        elif kind == 'relu':
            value = self.trace.relu(args[0].value)
        elif kind == 'max_pool2d':
            value = self.trace.pool(args[0].value, args[1], kwargs['stride'] or args[1], kwargs['padding'])
        elif kind == 'interpolate':
            value = self.trace.upsample(args[0].value, kwargs['scale_factor'])
        elif kind == 'cat':
            value = self.trace.concat([x.value for x in args[0]], kwargs['dim'])
        elif kind in ('add', 'add_'):
            value = self.trace.add([x.value for x in args])
        else:
            return func(*args, **kwargs)
        out = torch.empty(1, 1, 1, 1, device='meta')
        out.value = value
        return out


def _trace_ours(trace: Trace, model: nn.Module) -> tuple[dict[int, dict[str, str]], list[Value]]:
    """The names of our tensors by operation and role, and the heatmaps."""
    names = {id(tensor): name for name, tensor in model.state_dict(keep_vars=True).items()}
    image = torch.empty(1, 3, model.size_divisor, model.size_divisor, device='meta')
    image.value = trace.record('image')
    with torch.no_grad(), _Tracer(trace, names) as tracer:
        all_heatmaps = model(image)
    return tracer.parameters, [heatmaps.value for heatmaps in all_heatmaps]


class _Interpreter:
    """Runs Torch7 modules on values, or on lists of them where Torch7 has tables, and collects their tensors.

    Args:
        trace: Where to record the operations.
        parameters: Gets the tensors: number -> role -> tensor.
        path: The file's, for messages.
    """

    def __init__(self, trace: Trace, parameters: dict[int, dict[str, Tensor]], path: str):
        self.trace = trace
        self.parameters = parameters
        self.path = path

    def run(self, module, x):
        kind = module.torch_typename().decode().rpartition('.')[2]
        if kind == 'Identity':
            return x
        if kind == 'Sequential':
            for child in _items(module.modules):
                x = self.run(child, x)
            return x
        if kind == 'ConcatTable':
            return [self.run(child, x) for child in _items(module.modules)]
        if kind == 'gModule':
            return self.graph(module, x)
        if kind == 'CAddTable':
            return self.trace.add(x)
        if kind == 'JoinTable':
            return self.trace.concat(x, module.dimension - 1)
        if kind == 'ReLU':
            return self.trace.relu(x)
        if kind == 'SpatialMaxPooling':
            square = (module.kW, module.dW, module.padW) == (module.kH, module.dH, module.padH)
            self.check(square, 'a pooling that is not square')
            return self.trace.pool(x, module.kW, module.dW, module.padW or 0)
        if kind == 'SpatialUpSamplingNearest':
            return self.trace.upsample(x, module.scale_factor)
        if kind in ('SpatialConvolution', 'SpatialConvolutionMM'):
            # nn.SpatialConvolutionMM keeps its weight with two axes
            weight = _tensor(module.weight).reshape(module.nOutputPlane, -1, module.kH, module.kW)
            tensors = (
                dict(weight=weight) if module.bias is None else dict(weight=weight, bias=_tensor(module.bias))
            )
            padding = (module.padH or 0, module.padW or 0)
            value = self.trace.conv(x, weight.shape, (module.dH, module.dW), padding, 'bias' in tensors)
        elif kind in ('SpatialBatchNormalization', 'BatchNormalization'):
            eps = module.eps or 1e-5
            self.check(module.weight is not None, 'a batch normalisation without weights')
            # until 2015 there was running_std, which is the reciprocal of a deviation
            var = (
                module.running_var
                if module.running_std is None
                else module.running_std.astype(np.float64) ** -2 - eps
            )
            tensors = dict(
                zip(NORM_TENSORS, map(_tensor, (module.weight, module.bias, module.running_mean, var)))
            )
            value = self.trace.norm(x, len(tensors['weight']), eps)
            self.check(len(set(map(len, tensors.values()))) == 1, 'a batch normalisation of two sizes')
        else:
            self.check(False, f'a module of the class {kind}')
        self.check(value[0] not in self.parameters, 'two equal modules side by side')
        self.parameters[value[0]] = tensors
        return value

    def graph(self, module, x):
        """nngraph's forward pass: ``data.mapindex`` of a node lists ``data`` of the nodes that its inputs
        come from."""
        values = {}
        for node in _items(module.forwardnodes):
            data = node.data
            if data is not module.innode.data:
                inputs = [values[id(source)] for source in _items(data.mapindex)]
                x = inputs[0] if len(inputs) == 1 else inputs
                if data.selectindex is not None:
                    x = x[data.selectindex - 1]
                if data.module is not None:
                    x = self.run(data.module, x)
            values[id(data)] = x
        return values[id(module.outnode.data)]

    def check(self, supported: bool, what: str) -> None:
        if not supported:
            raise InputError(
                f'The Torch7 file {self.path} holds {what}, which the stacked hourglass networks of '
                "Newell's paper do not have; only those can be read."
            )


def _arguments(trace: Trace, outputs: list[Value]) -> dict:
    """What :class:`StackedHourglass` is to be called with to get a network like the traced one, if there is
    any."""
    operations = trace.operations

    def numbers(kind):
        return [number for number, operation in enumerate(operations) if operation[0] == kind]

    def middles(value):
        """Numbers of the 3x3 convolutions that ``value`` depends on: one a residual, with half of its
        channels."""
        seen, waiting = set(), list(value)
        while waiting:
            number = waiting.pop()
            if number not in seen:
                seen.add(number)
                waiting.extend(source for value in operations[number][2] for source in value)
        return sorted(seen & residuals)

    def width(number):
        return operations[number][1][0][0]

    convs, pools, ups = numbers('conv'), numbers('pool'), numbers('upsample')
    residuals = {number for number in convs if operations[number][1][0][2:] == (3, 3)}
    single_convs = {
        (number,) for number in convs
    }  # a norm follows anything else in pre-activation residuals only
    num_stacks = len(outputs)
    depth = (len(pools) - 1) // num_stacks
    # Whatever order the graph is run in, the second pooling is the first hourglass's outermost, and the first
    # up-sampling its innermost.
    stem = middles(operations[pools[1]][2][0])
    up = ups[0]
    skip = [
        number for number in next(x for _, _, inputs in operations for x in inputs if up in x) if number != up
    ]
    inside, beside = middles((up,)), middles(skip)
    before, after = (len(beside) - len(stem)) // depth, (len(inside) - len(beside)) // 2
    stem_channels = (width(convs[0]), *(2 * width(number) for number in stem))
    return dict(
        num_stacks=num_stacks,
        num_keypoints=width(outputs[0][0]),
        depth=depth,
        channels=stem_channels[-1],
        num_blocks=(before, after),
        stem_channels=stem_channels,
        out_channels=2 * width(inside[-1]),
        residual='postact'
        if all(operations[number][2][0] in single_convs for number in numbers('norm'))
        else 'preact',
        join='concat' if numbers('concat') else 'add',
    )


def _items(table: dict) -> list:
    """A Lua table's list, which may share its table with other keys."""
    items = []
    while len(items) + 1 in table:
        items.append(table[len(items) + 1])
    return items


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32, order='C'))


def _load(path: str):
    """A Torch7 file's content as torchfile gives it, tables as dicts."""
    try:
        import torchfile
    except ImportError as error:
        raise InputError(
            f'{path} is a Torch7 file, and reading it needs the package torchfile: pip install torchfile.'
        ) from error
    # torchfile's own tensors reach beyond their storage where the file is wrong or cut off
    torchfile.type_handlers.update(
        {name: _read_tensor for name in torchfile.type_handlers if name.endswith(b'Tensor')}
    )
    try:
        # torchfile makes lists by comparing their items with ==, which fails for arrays
        return _call_deep(torchfile.load, path, use_list_heuristic=False)
    except Exception as error:  # it raises anything on a broken file: struct's, an EOFError, a TypeError ...
        raise InputError(
            f'{path} is no Torch7 file that can be read, or was cut off '
            f'({type(error).__name__}: {error}); get it again.'
        ) from error


def _read_tensor(reader, version) -> np.ndarray:
    """For torchfile: a tensor whose elements all lie in its storage."""
    dims = reader.read_int()
    size, stride = reader.read_long_array(dims), reader.read_long_array(dims)
    offset = reader.read_long() - 1
    storage = reader.read_obj()
    if storage is None or not dims:
        return np.empty(0)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride))
    if offset < 0 or min(size) < 1 or min(stride) < 0 or last >= len(storage):
        raise ValueError(f'a tensor of {size} elements is longer than its storage of {len(storage)}')
    return np.lib.stride_tricks.as_strided(
        storage[offset:], size, [step * storage.itemsize for step in stride]
    )


def _call_deep(function, *args, **kwargs):
    """Calls a function in a thread with a large stack: torchfile recurses from node to node, thousands of
    calls."""
    limit, stack = sys.getrecursionlimit(), threading.stack_size(256 * 2**20)
    sys.setrecursionlimit(10**5)
    try:
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(function, *args, **kwargs).result()
    finally:
        sys.setrecursionlimit(limit)
        threading.stack_size(stack)
