"""Read stacked hourglass networks from Torch7 files (.t7), in which nngraph keeps a graph of modules.

Such a file names no module, and nngraph lists the modules in any order. Therefore its graph is run on symbols
instead of images, and this package's network too: operations match if they do the same to the same inputs.
"""

import itertools
import operator
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from hg_plugin.models import StackedHourglass
from hg_plugin.utils.errors import InputError, need_packages

# Numbers of the operations whose results are added, sorted: order and nesting of additions do not matter.
Value = tuple[int, ...]
NORM_TENSORS = ('weight', 'bias', 'running_mean', 'running_var')


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
    except (AttributeError, LookupError, RuntimeError, StopIteration, TypeError, ValueError) as error:
        raise InputError(
            f"The Torch7 file {path} holds no stacked hourglass network of Newell's paper ({error}); give a "
            'file that the training code saved, such as final_model.t7.'
        ) from error


def _match(content) -> tuple[dict, dict[str, Tensor]]:
    """Return arguments and state dict of the :class:`StackedHourglass` that does what ``content`` does."""
    trace = Trace()
    image = trace.record('image', ())
    interpreter = _Interpreter(trace)
    outputs = interpreter.run(content, image)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    arguments = _arguments([*trace], outputs)
    with torch.device('meta'):
        model = StackedHourglass(**arguments)
    our_outputs, ours = _trace(model, trace, image)
    theirs = interpreter.tensors
    missing = [name for number, roles in ours.items() if number not in theirs for name in roles.values()]
    left = [' '.join(map(str, [*trace][number][:2])) for number in theirs if number not in ours]
    if missing or left or outputs != our_outputs:
        raise ValueError(
            f'the closest network is {arguments}, but the tensors {missing[:3]} are missing, the modules '
            f'{left[:3]} are left over, or the outputs are not the heatmaps of the stacks, first to last'
        )
    state = {name: theirs[number][role] for number, roles in ours.items() for role, name in roles.items()}
    # Torch7 does not count batches
    state = {name: state.get(name, torch.tensor(0)) for name in model.state_dict()}
    model.load_state_dict(state, assign=True)  # which checks shapes
    return arguments, state


class Trace(dict):
    """Numbers of operations, each a kind, attributes and inputs, in the order of their first use."""

    def record(self, kind: str, attributes: tuple, *inputs: Value) -> Value:
        return (self.setdefault((kind, attributes, inputs), len(self)),)


def _add(values: list[Value]) -> Value:
    return tuple(sorted(number for value in values for number in value))


def _trace(model: StackedHourglass, trace: Trace, image: Value) -> tuple[list[Value], dict[int, dict]]:
    """Record what a network does: its outputs, and by operation the names of its tensors by their roles."""
    tracer = fx.Tracer()
    tracer.traced_func_name = '_heatmaps'
    *nodes, output = tracer.trace(model).nodes
    values, names = {}, {}
    for node in nodes:
        inputs = [values[source] for source in node.all_input_nodes]
        module = model.get_submodule(node.target) if node.op == 'call_module' else None
        if node.op == 'placeholder':
            value = image
        elif isinstance(module, nn.Conv2d):
            shape = tuple(module.weight.shape)
            value = trace.record('conv', (shape, module.stride, module.padding), *inputs)
        elif isinstance(module, nn.BatchNorm2d):
            value = trace.record('norm', (module.num_features, module.eps), *inputs)
        elif isinstance(module, nn.ReLU) or node.target is F.relu:
            value = trace.record('relu', (), *inputs)
        elif node.target is F.max_pool2d:
            value = trace.record('pool', (2, 2, 0), *inputs)
        elif node.target is F.interpolate:
            value = trace.record('upsample', (2,), *inputs)
        elif node.target is torch.cat:
            value = trace.record('concat', (1,), *inputs)
        elif node.target in (operator.add, 'add_'):
            value = _add(inputs)
        else:  # nn.Identity
            (value,) = inputs
        values[node] = value
        if module is not None and (roles := module.state_dict().keys() - {'num_batches_tracked'}):
            names[value[0]] = {role: f'{node.target}.{role}' for role in sorted(roles)}
    return [values[node] for node in output.all_input_nodes], names


class _Interpreter:
    """Run Torch7 modules on values, or on lists of them for Torch7's tables, and collect their tensors."""

    def __init__(self, trace: Trace):
        self.record = trace.record
        self.tensors: dict[int, dict[str, Tensor]] = {}  # number -> role -> tensor

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
            return _add(x)
        if kind == 'JoinTable':
            return self.record('concat', (module.dimension - 1,), *x)
        if kind == 'ReLU':
            return self.record('relu', (), x)
        if kind == 'SpatialMaxPooling':
            return self.record('pool', (module.kW, module.dW, module.padW or 0), x)
        if kind == 'SpatialUpSamplingNearest':
            return self.record('upsample', (module.scale_factor,), x)
        if kind in ('SpatialConvolution', 'SpatialConvolutionMM'):
            # nn.SpatialConvolutionMM keeps its weight with two axes
            weight = _tensor(module.weight).reshape(module.nOutputPlane, -1, module.kH, module.kW)
            tensors = dict(weight=weight, bias=_tensor(module.bias))
            stride, padding = (module.dH, module.dW), (module.padH or 0, module.padW or 0)
            value = self.record('conv', (tuple(weight.shape), stride, padding), x)
        elif kind in ('SpatialBatchNormalization', 'BatchNormalization'):
            eps, var = module.eps or 1e-5, module.running_var
            if module.running_std is not None:  # until 2015, the reciprocal of the standard deviation
                var = module.running_std.astype(np.float64) ** -2 - eps
            arrays = (module.weight, module.bias, module.running_mean, var)
            tensors = dict(zip(NORM_TENSORS, map(_tensor, arrays)))
            value = self.record('norm', (len(tensors['weight']), eps), x)
        else:
            raise ValueError(f'a module of the class {kind}')
        if value[0] in self.tensors:
            raise ValueError('two equal modules side by side')
        self.tensors[value[0]] = tensors
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
        return sorted(set().union(*(residuals[number] for number in value)))

    def width(number):
        return operations[number][1][0][0]

    convs, pools, ups = numbers('conv'), numbers('pool'), numbers('upsample')
    # of each operation, the 3x3 convolutions up to it: one a residual, with half of its channels
    residuals: list[set[int]] = []
    for number, (kind, attributes, inputs) in enumerate(operations):
        own = {number} if kind == 'conv' and attributes[0][2:] == (3, 3) else set()
        residuals.append(own.union(*(residuals[source] for value in inputs for source in value)))
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

    tensors = [name for name in torchfile.type_handlers if name.endswith(b'Tensor')]
    torchfile.type_handlers.update(dict.fromkeys(tensors, _read_tensor))
    # torchfile recurses from node to node, which takes a thread with a large stack
    limit, stack = sys.getrecursionlimit(), threading.stack_size(256 * 2**20)
    sys.setrecursionlimit(10**5)
    try:
        with ThreadPoolExecutor(1) as executor:
            # the heuristic compares items with ==, which fails for arrays
            return executor.submit(torchfile.load, path, use_list_heuristic=False).result()
    except Exception as error:  # it raises anything on a broken file: struct's, an EOFError, a TypeError ...
        raise InputError(
            f'{path} is no Torch7 file that can be read, or was cut off '
            f'({type(error).__name__}: {error}); get it again.'
        ) from error
    finally:
        sys.setrecursionlimit(limit)
        threading.stack_size(stack)


def _read_tensor(reader, version) -> np.ndarray:
    """Read a tensor for torchfile, whose own would reach beyond their storage if the file is wrong."""
    dims = reader.read_int()
    size, stride = reader.read_long_array(dims), reader.read_long_array(dims)
    offset = reader.read_long() - 1
    storage = reader.read_obj()
    if storage is None or not dims:
        return np.empty(0)
    return torch.from_numpy(storage).as_strided(size, stride, offset).numpy()  # torch checks the bounds
