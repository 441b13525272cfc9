"""Small Torch7 files with the networks of Newell's training code, written as Torch7 and nngraph would.

The networks are computed while they are built, each node by its own function. This gives the expected
heatmaps without reading the file.
"""

import random
import struct
from math import prod

import numpy as np
import torch
import torch.nn.functional as F

from hg_plugin.convert.torch7 import _call_deep


class Table(dict):
    """A Lua table, which can also be a key of another one."""

    __hash__ = object.__hash__


class Object:
    """An object of a Torch7 class; ``run`` computes what a module returns."""

    def __init__(self, typename, run=None, **fields):
        self.typename = typename
        self.run = run
        self.fields = Table(fields)


class Writer:
    """Torch7's binary format. Tensors are NumPy arrays; the array that one is a view of is its storage."""

    def __init__(self, file, kind='Float'):
        self.file = file
        self.kind = kind
        self.indices = {}

    def pack(self, code, *values):
        self.file.write(struct.pack(f'={code}', *values))

    def string(self, text):
        self.pack(f'i{len(text)}s', len(text), text.encode())

    def begin(self, kind, key, typename=None):
        """Writes a reference; true where the value has to follow."""
        known = key in self.indices
        self.pack('ii', kind, self.indices.setdefault(key, len(self.indices) + 1))
        if typename and not known:
            self.string('V 1')
            self.string(typename)
        return not known

    def write(self, value):
        if isinstance(value, bool):
            self.pack('ii', 5, value)
        elif isinstance(value, (int, float)):
            self.pack('id', 1, value)
        elif isinstance(value, str):
            self.pack('i', 2)
            self.string(value)
        elif isinstance(value, Table):
            if self.begin(3, id(value)):
                self.pack('i', len(value))
                for key, inner in value.items():
                    self.write(key)
                    self.write(inner)
        elif isinstance(value, np.ndarray):
            self.write_tensor(value)
        elif self.begin(4, id(value), value.typename):
            self.write(value.fields)

    def write_tensor(self, array):
        if not self.begin(4, id(array), f'torch.{self.kind}Tensor'):
            return
        storage = array if array.base is None else array.base
        strides = [step // array.itemsize for step in array.strides]
        offset = (array.ctypes.data - storage.ctypes.data) // array.itemsize
        self.pack(f'i{2 * array.ndim + 1}q', array.ndim, *array.shape, *strides, 1 + offset)
        if self.begin(4, (id(storage), 'storage'), f'torch.{self.kind}Storage'):
            self.pack('q', storage.size)
            self.file.write(storage.astype(np.float64 if self.kind == 'Double' else np.float32).tobytes())


class Node:
    """A node of nngraph, with its value."""

    def __init__(self, module, *inputs, value=None):
        sources = [source.data for source in inputs]
        numbers = Table(enumerate(sources, 1)) | {source: i for i, source in enumerate(sources, 1)}
        self.data = Table(mapindex=Table(numbers), annotations=Table())
        self.inputs = inputs
        self.value = value
        if module is not None:
            self.data['module'] = module
            values = [source.value for source in inputs]
            self.value = module.run(values[0] if len(values) == 1 else values)


def graph_module(inp, outputs, seed=0):
    """nn.gModule with its forward nodes in some order that can be computed."""
    out = Node(None, *outputs)
    nodes = [out]
    for node in nodes:
        nodes += [source for source in node.inputs if source not in nodes]
    written = {node: Object('nngraph.Node', data=node.data, children=Table()) for node in nodes}
    for node in nodes:
        for source in node.inputs:
            children = written[source].fields['children']
            children[1 + len(children)] = written[node]
    order, done, chance = [], set(), random.Random(seed)
    while len(order) < len(nodes):
        ready = [node for node in nodes if node not in done and done.issuperset(node.inputs)]
        order.append(chance.choice(ready))
        done.add(order[-1])
    return Object(
        'nn.gModule',
        forwardnodes=Table(enumerate((written[node] for node in order), 1)),
        innode=written[inp],
        outnode=Object('nngraph.Node', data=out.data),
        nInputs=1,
        verbose=False,
    )


class Modules:
    """Makes modules with random weights.

    Args:
        backend: 'cudnn' or 'nn', for what both have.
        old: As in 2015: weights of nn.SpatialConvolutionMM with two axes, and running_std.
    """

    def __init__(self, backend='cudnn', old=False, seed=0):
        self.backend = backend
        self.old = old
        self.random = np.random.RandomState(seed)
        self.storage = np.zeros(2**20, np.float32)
        self.used = 0

    def normal(self, *shape, scale=1.0, offset=0.0):
        """A part of the storage that all weights share, as ``getParameters`` leaves them."""
        start, self.used = self.used, self.used + prod(shape)
        part = self.storage[start : self.used].reshape(shape)
        part[:] = offset + scale * self.random.standard_normal(shape)
        return part

    def conv(self, inputs, outputs, size=1, stride=1, padding=0):
        weight = self.normal(outputs, inputs, size, size, scale=(inputs * size**2) ** -0.5)
        bias = self.normal(outputs, scale=0.1)
        name = 'nn.SpatialConvolutionMM' if self.old else f'{self.backend}.SpatialConvolution'
        weights = torch.from_numpy(weight), torch.from_numpy(bias)
        return Object(
            name,
            lambda x: F.conv2d(x, *weights, stride, padding),
            **dict(nInputPlane=inputs, nOutputPlane=outputs),
            **dict(kW=size, kH=size, dW=stride, dH=stride, padW=padding, padH=padding),
            **dict(weight=weight.reshape(outputs, -1) if self.old else weight, bias=bias),
        )

    def norm(self, channels):
        mean, bias = self.normal(channels, scale=0.1), self.normal(channels, scale=0.1)
        weight, var = self.normal(channels, scale=0.1, offset=1), 1 + abs(self.normal(channels, scale=0.2))
        statistics = dict(running_std=(var + 1e-5) ** -0.5) if self.old else dict(running_var=var)
        run = lambda x: F.batch_norm(x, *map(torch.from_numpy, (mean, var, weight, bias)))
        fields = dict(weight=weight, bias=bias, running_mean=mean, eps=1e-5, **statistics)
        return Object('nn.SpatialBatchNormalization', run, **fields)

    def relu(self):
        return Object(f'{self.backend}.ReLU', torch.relu, inplace=True, threshold=0, val=0)

    def pool(self):
        fields = dict(kW=2, kH=2, dW=2, dH=2, padW=0, padH=0)
        return Object(f'{self.backend}.SpatialMaxPooling', lambda x: F.max_pool2d(x, 2), **fields)

    def upsample(self):
        run = lambda x: F.interpolate(x, scale_factor=2)
        return Object('nn.SpatialUpSamplingNearest', run, scale_factor=2)

    def identity(self):
        return Object('nn.Identity', lambda x: x)

    def add(self):
        return Object('nn.CAddTable', sum)

    def join(self):
        return Object('nn.JoinTable', lambda x: torch.cat(x, 1), dimension=2)

    def sequential(self, *modules):
        def run(x):
            for module in modules:
                x = module.run(x)
            return x

        return Object('nn.Sequential', run, modules=Table(enumerate(modules, 1)))

    def fork(self, *modules):
        run = lambda x: [module.run(x) for module in modules]
        return Object('nn.ConcatTable', run, modules=Table(enumerate(modules, 1)))


def preact_residual(nn, inputs, outputs):
    """The training code's: BN-ReLU-conv three times."""
    middle = outputs // 2
    first = nn.norm(inputs), nn.relu(), nn.conv(inputs, middle)
    second = nn.norm(middle), nn.relu(), nn.conv(middle, middle, 3, padding=1)
    block = nn.sequential(*first, *second, nn.norm(middle), nn.relu(), nn.conv(middle, outputs))
    skip = nn.identity() if inputs == outputs else nn.sequential(nn.conv(inputs, outputs))
    return nn.sequential(nn.fork(block, skip), nn.add())


def postact_residual(nn, inputs, outputs):
    """The first version's: conv-BN-ReLU, the last ReLU after the sum."""
    middle = outputs // 2
    first = nn.conv(inputs, middle), nn.norm(middle), nn.relu()
    second = nn.conv(middle, middle, 3, padding=1), nn.norm(middle), nn.relu()
    block = nn.sequential(*first, *second, nn.conv(middle, outputs), nn.norm(outputs))
    skip = nn.identity() if inputs == outputs else nn.sequential(nn.conv(inputs, outputs), nn.norm(outputs))
    return nn.sequential(nn.fork(block, skip), nn.add(), nn.relu())


class Builder:
    """Puts modules into a graph; ``residual`` is one of the two functions above."""

    def __init__(self, nn, residual):
        self.nn = nn
        self.make_residual = residual

    def residuals(self, x, *widths):
        for inputs, outputs in zip(widths, widths[1:]):
            x = Node(self.make_residual(self.nn, inputs, outputs), x)
        return x

    def linear(self, x, inputs, outputs):
        x = Node(self.nn.norm(outputs), Node(self.nn.conv(inputs, outputs), x))
        return Node(self.nn.relu(), x)

    def stem(self, image, *widths):
        """The graph's input, the first pooling, and the first hourglass's input."""
        inp = Node(None, value=image)
        x = Node(self.nn.identity(), inp)
        x = Node(self.nn.norm(widths[0]), Node(self.nn.conv(3, widths[0], 7, 2, 3), x))
        x = self.residuals(Node(self.nn.relu(), x), *widths[:2])
        pooled = Node(self.nn.pool(), x)
        return inp, pooled, self.residuals(pooled, *widths[1:])

    def hourglass(self, depth, x, inputs, middle, outputs, before, after):
        skip = self.residuals(x, inputs, *[middle] * (before - 1), outputs)
        x = self.residuals(Node(self.nn.pool(), x), inputs, *[middle] * before)
        if depth > 1:
            x = self.hourglass(depth - 1, x, middle, middle, outputs, before, after)
        else:
            x = self.residuals(x, middle, *[outputs] * after)
        x = self.residuals(x, outputs, *[outputs] * after)
        return Node(self.nn.add(), skip, Node(self.nn.upsample(), x))


def second_version(nn, image, num_stacks=2, num_modules=1, num_keypoints=16, depth=4, residuals=True, seed=0):
    """The network of src/models/hg.lua, of the paper's second version: (nn.gModule, heatmaps of every stack).

    ``residuals=False`` leaves out those between an hourglass and its prediction, as an early revision did.
    """
    build = Builder(nn, preact_residual)
    channels = 20
    inp, _, x = build.stem(image, 4, 8, 8, channels)
    outputs = []
    for stack in range(num_stacks):
        features = build.hourglass(depth, x, channels, channels, channels, num_modules, num_modules)
        features = build.residuals(features, *[channels] * (num_modules * residuals + 1))
        features = build.linear(features, channels, channels)
        outputs.append(Node(nn.conv(channels, num_keypoints), features))
        if stack < num_stacks - 1:
            from_features = Node(nn.conv(channels, channels), features)
            x = Node(nn.add(), x, from_features, Node(nn.conv(num_keypoints, channels), outputs[-1]))
    return graph_module(inp, outputs, seed), [output.value for output in outputs]


def first_version(nn, image, residual, depth=4, seed=0):
    """The network of src/models/hg-stacked.lua, of the paper's first version: (nn.gModule, both heatmaps)."""
    build = Builder(nn, residual)
    channels, out_channels, num_keypoints = 16, 32, 16
    inp, pooled, x = build.stem(image, 4, 8, 8, 8, channels)
    wide = channels + 8  # of the pooled stem
    first = build.hourglass(depth, x, channels, channels, out_channels, 3, 1)
    first = build.linear(build.linear(first, out_channels, out_channels), out_channels, channels)
    heatmaps = Node(nn.conv(channels, num_keypoints), first)
    joined = Node(nn.conv(wide, wide), Node(nn.join(), first, pooled))
    x = Node(nn.add(), joined, Node(nn.conv(num_keypoints, wide), heatmaps))
    second = build.hourglass(depth, x, wide, channels, out_channels, 3, 1)
    second = build.linear(build.linear(second, out_channels, out_channels), out_channels, out_channels)
    outputs = [heatmaps, Node(nn.conv(out_channels, num_keypoints), second)]
    return graph_module(inp, outputs, seed), [output.value for output in outputs]


def save_torch7(path, content, kind='Float'):
    with open(path, 'wb') as file:
        _call_deep(Writer(file, kind).write, content)
