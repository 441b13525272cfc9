"""Read stacked hourglass networks from Torch7 files (.t7), in which nngraph keeps a graph of modules.

Such a file names no module, and nngraph lists the modules in any order. Therefore its graph is run on symbols
instead of images, and this package's network too: operations match if they do the same to the same inputs.
"""

import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from hg_plugin.models import StackedHourglass
from hg_plugin.utils.errors import InputError, need_packages

# Numbers of the operations whose results are added, sorted: order and nesting of additions do not matter.
Value = tuple[int, ...]
TORCH7_MAGIC = tuple(kind.to_bytes(4, 'little') for kind in (3, 4))  # the file is a table or an object
NORM_TENSORS = ('weight', 'bias', 'running_mean', 'running_var')


def is_torch7(path: str) -> bool:
    """Return whether a file starts like Torch7's binary files."""
    try:
        with open(path, 'rb') as file:
            return file.read(4) in TORCH7_MAGIC
    except OSError:
        return False


def read_torch7(path: str) -> tuple[dict, dict[str, Tensor]]:
    """Read a network that Newell's training code saved, without running code in the file.

    Args:
        path: A Torch7 file in the binary format of 64-bit machines.

    Returns:
        The arguments of :class:`StackedHourglass` and its state dict.

    Raises:
        InputError: If the file is cut off, holds anything but a stacked hourglass network, or if the package
            torchfile is missing.
    """
    content = _load(path)
    try:
        return _match(content)
    except (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
        raise InputError(
            f"The Torch7 file {path} holds no stacked hourglass network of Newell's paper ({error}); give a "
            'file that the training code saved, such as final_model.t7.'
        ) from error


def _match(content) -> tuple[dict, dict[str, Tensor]]:
    """Return arguments and state dict of the :class:`StackedHourglass` that does what ``content`` does."""
    trace = Trace()
    interpreter = _Interpreter(trace)
    outputs = interpreter.run(content, trace.record('image', ()))
    arguments = _arguments([*trace], outputs if isinstance(outputs, list) else [outputs])
    with torch.device('meta'):
        model = StackedHourglass(**arguments).eval()
    image = torch.empty(1, 3, model.size_divisor, model.size_divisor, device='meta')
    image.value = trace.record('image', ())
    with torch.no_grad(), _Tracer(trace, model) as tracer:
        our_outputs = [heatmaps.value for heatmaps in model(image)]
    ours, theirs = tracer.parameters, interpreter.parameters
    missing = [name for number, roles in ours.items() if number not in theirs for name in roles.values()]
    left = [' '.join(map(str, [*trace][number][:2])) for number in theirs if number not in ours]
    if missing or left or outputs not in (our_outputs, our_outputs[0]):
        raise ValueError(
            f'the closest network is {arguments}, but the tensors {missing[:3]} are missing, the modules '
            f'{left[:3]} are left over, or the outputs are not the heatmaps of the stacks, first to last'
        )
    state = {name: theirs[number][role] for number, roles in ours.items() for role, name in roles.items()}
    # Torch7 does not count batches
    return arguments, {name: state.get(name, torch.tensor(0)) for name in model.state_dict()}


class Trace(dict):
    """Numbers of operations, each a kind, attributes and inputs, in the order of their first use."""

    def record(self, kind: str, attributes: tuple, *inputs: Value) -> Value:
        return (self.setdefault((kind, attributes, inputs), len(self)),)


def _add(values: list[Value]) -> Value:
    return tuple(sorted(number for value in values for number in value))


class _Tracer(TorchFunctionMode):
    """Record what a :class:`StackedHourglass` does with tensors that have an attribute ``value``.

    Nothing is computed, not even shapes: results are tensors of four axes, which is enough for the network.
    """

    def __init__(self, trace: Trace, model: StackedHourglass):
        super().__init__()
        self.record = trace.record
        self.names = {id(tensor): name for name, tensor in model.state_dict(keep_vars=True).items()}
        self.parameters = {}  # number -> role -> name

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        kind = func.__name__
        if kind == 'conv2d':
            x, weight, bias, stride, padding = args[:5]
            value = self.record('conv', (tuple(weight.shape), stride, padding, bias is not None), x.value)
            self.parameters[value[0]] = dict(weight=self.names[id(weight)], bias=self.names[id(bias)])
        elif kind == 'batch_norm':
            x, mean, var = args
            value = self.record('norm', (len(mean), kwargs['eps']), x.value)
            names = (self.names[id(tensor)] for tensor in (kwargs['weight'], kwargs['bias'], mean, var))
            self.parameters[value[0]] = dict(zip(NORM_TENSORS, names))
        elif kind == 'relu':
            value = self.record('relu', (), args[0].value)
        elif kind == 'max_pool2d':
            stride = kwargs['stride'] or args[1]
            value = self.record('pool', (args[1], stride, kwargs['padding']), args[0].value)
        elif kind == 'interpolate':
            value = self.record('upsample', (kwargs['scale_factor'],), args[0].value)
        elif kind == 'cat':
            value = self.record('concat', (kwargs['dim'],), *(x.value for x in args[0]))
        elif kind in ('add', 'add_'):
            value = _add([x.value for x in args])
        else:
            return func(*args, **kwargs)
        out = torch.empty(1, 1, 1, 1, device='meta')
        out.value = value
        return out


class _Interpreter:
    """Run Torch7 modules on values, or on lists of them for Torch7's tables, and collect their tensors."""

    def __init__(self, trace: Trace):
        self.record = trace.record
        self.parameters = {}  # number -> role -> tensor

    def run(self, module, x):
        if not hasattr(type(module), 'torch_typename'):
            raise TypeError(f'a {type(module).__name__} instead of a module')
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
            return _add(x)
        if kind == 'JoinTable':
            return self.record('concat', (module.dimension - 1,), *x)
        if kind == 'ReLU':
            return self.record('relu', (), x)
        if kind == 'SpatialMaxPooling':
            if (module.kW, module.dW, module.padW) != (module.kH, module.dH, module.padH):
                raise ValueError('a pooling that is not square')
            return self.record('pool', (module.kW, module.dW, module.padW or 0), x)
        if kind == 'SpatialUpSamplingNearest':
            return self.record('upsample', (module.scale_factor,), x)
        if kind in ('SpatialConvolution', 'SpatialConvolutionMM'):
            # nn.SpatialConvolutionMM keeps its weight with two axes
            weight = _tensor(module.weight).reshape(module.nOutputPlane, -1, module.kH, module.kW)
            tensors = dict(weight=weight)
            if module.bias is not None:
                tensors['bias'] = _tensor(module.bias)
            stride, padding = (module.dH, module.dW), (module.padH or 0, module.padW or 0)
            value = self.record('conv', (tuple(weight.shape), stride, padding, 'bias' in tensors), x)
        elif kind in ('SpatialBatchNormalization', 'BatchNormalization'):
            eps, var = module.eps or 1e-5, module.running_var
            if module.running_std is not None:  # until 2015, the reciprocal of the standard deviation
                var = module.running_std.astype(np.float64) ** -2 - eps
            arrays = (module.weight, module.bias, module.running_mean, var)
            tensors = dict(zip(NORM_TENSORS, map(_tensor, arrays)))
            if len(set(map(len, tensors.values()))) != 1:
                raise ValueError('a batch normalization of two sizes')
            value = self.record('norm', (len(tensors['weight']), eps), x)
        else:
            raise ValueError(f'a module of the class {kind}')
        if value[0] in self.parameters:
            raise ValueError('two equal modules side by side')
        self.parameters[value[0]] = tensors
        return value

    def graph(self, module, x):
        """Run nngraph's forward pass. ``data.mapindex`` of a node lists the ``data`` of its inputs."""
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


def _arguments(operations: list, outputs: list[Value]) -> dict:
    """Return the arguments of the :class:`StackedHourglass` with these operations, if there is one."""

    def numbers(kind):
        return [number for number, operation in enumerate(operations) if operation[0] == kind]

    def middles(value):
        """Return the 3x3 convolutions before ``value``: one a residual, with half of its channels."""
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
    num_stacks = len(outputs)
    depth = (len(pools) - 1) // num_stacks
    # in any order of the graph, the second pooling is the first hourglass's outermost, and the first
    # upsampling its innermost
    stem = middles(operations[pools[1]][2][0])
    skip = next({*x} - {ups[0]} for _, _, inputs in operations for x in inputs if ups[0] in x)
    inside, beside = middles(ups[:1]), middles(skip)
    before, after = (len(beside) - len(stem)) // depth, (len(inside) - len(beside)) // 2
    stem_channels = (width(convs[0]), *(2 * width(number) for number in stem))
    # only in pre-activation residuals do norms follow anything but a convolution
    postact = all(operations[number][2][0] in [(conv,) for conv in convs] for number in numbers('norm'))
    return dict(
        num_stacks=num_stacks,
        num_keypoints=width(outputs[0][0]),
        depth=depth,
        channels=stem_channels[-1],
        num_blocks=(before, after),
        stem_channels=stem_channels,
        out_channels=2 * width(inside[-1]),
        residual='postact' if postact else 'preact',
        join='concat' if numbers('concat') else 'add',
    )


def _items(table: dict) -> list:
    """Return a Lua table's list, which can share the table with other keys."""
    return [table[index] for index in itertools.takewhile(table.__contains__, itertools.count(1))]


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, np.float32, order='C'))


def _load(path: str):
    """Return a Torch7 file's content as torchfile reads it, with dicts for tables."""
    need_packages(f'{path}, a Torch7 file,', 'torchfile')
    import torchfile

    # torchfile's own tensors reach beyond their storage if the file is wrong or cut off
    tensors = [name for name in torchfile.type_handlers if name.endswith(b'Tensor')]
    torchfile.type_handlers.update(dict.fromkeys(tensors, _read_tensor))
    try:
        # the heuristic compares items with ==, which fails for arrays
        return _call_deep(torchfile.load, path, use_list_heuristic=False)
    except Exception as error:  # it raises anything on a broken file: struct's, an EOFError, a TypeError ...
        raise InputError(
            f'{path} is no Torch7 file that can be read, or was cut off '
            f'({type(error).__name__}: {error}); get it again.'
        ) from error


def _read_tensor(reader, version) -> np.ndarray:
    """Read a tensor for torchfile, and check that all its elements lie in its storage."""
    dims = reader.read_int()
    size, stride = reader.read_long_array(dims), reader.read_long_array(dims)
    offset = reader.read_long() - 1
    storage = reader.read_obj()
    if storage is None or not dims:
        return np.empty(0)
    last = offset + sum((length - 1) * step for length, step in zip(size, stride))
    if offset < 0 or min(size) < 1 or min(stride) < 0 or last >= len(storage):
        raise ValueError(f'a tensor of {size} elements is longer than its storage of {len(storage)}')
    strides = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides)


def _call_deep(function, *args, **kwargs):
    """Call a function in a thread with a large stack, because torchfile recurses from node to node."""
    limit, stack = sys.getrecursionlimit(), threading.stack_size(256 * 2**20)
    sys.setrecursionlimit(10**5)
    try:
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(function, *args, **kwargs).result()
    finally:
        sys.setrecursionlimit(limit)
        threading.stack_size(stack)
