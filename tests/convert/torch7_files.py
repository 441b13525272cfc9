"""Small Torch7 files with the networks of Newell's training code, written as Torch7 and nngraph would.

The networks are computed while they are built, each node by its own function. This gives the expected
heatmaps without reading the file.
"""

import random
import struct

import numpy as np
import torch
import torch.nn.functional as F

from hg_plugin.convert.torch7 import _call_deep


class Table:
    """A Lua table: a list, named fields, and fields whose keys are tables."""

    def __init__(self, items=(), **fields):
        self.items = list(items)
        self.fields = fields
        self.others = []

    def pairs(self):
        return [*enumerate(self.items, 1), *self.fields.items(), *self.others]


class Object:
    """An object of a Torch7 class; ``run`` computes what a module returns."""

    def __init__(self, typename, run=None, **fields):
        self.typename = typename
        self.run = run
        self.fields = fields


class Writer:
    """Torch7's binary format. Tensors are NumPy arrays.

    Args:
        tensor: The tensors' class; an array's type is left as it is.
        shared: Keep all tensors in one storage, as ``getParameters`` leaves them.
        hollow: Keep one element of every tensor, with strides of 0.
    """

    def __init__(self, file, tensor='Float', shared=False, hollow=False):
        self.file = file
        self.tensor = tensor
        self.shared = [] if shared else None
        self.hollow = hollow
        self.indices = {}
        self.kept = []  # made while writing: the id of one that is gone would be another's

    def save(self, content):
        if self.shared is not None:
            self.shared_storage = Object(f'torch.{self.tensor}Storage')
            _call_deep(self.gather, content, set())
        _call_deep(self.write, content)

    def gather(self, value, seen):
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, np.ndarray):
            self.shared.append(value)
        for _, inner in value.pairs() if isinstance(value, Table) else getattr(value, 'fields', {}).items():
            self.gather(inner, seen)

    def pack(self, code, *values):
        self.file.write(struct.pack(f'={code}', *values))

    def string(self, text):
        self.pack('i', len(text))
        self.file.write(text.encode())

    def index(self, kind, value):
        """Writes a reference; true where the value has to follow."""
        known = id(value) in self.indices
        index = self.indices.setdefault(id(value), len(self.indices) + 1)
        self.pack('ii', kind, index)
        return not known

    def write(self, value):
        if value is None:
            self.pack('i', 0)
        elif isinstance(value, bool):
            self.pack('ii', 5, value)
        elif isinstance(value, (int, float)):
            self.pack('id', 1, value)
        elif isinstance(value, str):
            self.pack('i', 2)
            self.string(value)
        elif isinstance(value, Table):
            if self.index(3, value):
                self.pack('i', len(value.pairs()))
                for key, inner in value.pairs():
                    self.write(key)
                    self.write(inner)
        elif isinstance(value, np.ndarray):
            if self.index(4, value):
                self.string('V 1')
                self.string(f'torch.{self.tensor}Tensor')
                self.array(value)
        elif self.index(4, value):
            self.string('V 1')
            self.string(value.typename)
            if value.typename.endswith('Storage'):
                data = np.concatenate([array.ravel() for array in value.fields.get('arrays', self.shared)])
                self.pack('q', data.size)
                self.file.write(data.astype(np.float64 if self.tensor == 'Double' else np.float32).tobytes())
            else:
                fields = Table(**value.fields)
                self.indices[id(fields)] = len(self.indices) + 1
                self.kept.append(fields)
                self.pack('iii', 3, self.indices[id(fields)], len(value.fields))
                for key, inner in fields.pairs():
                    self.write(key)
                    self.write(inner)

    def array(self, array):
        strides = [0] * array.ndim if self.hollow else [step // array.itemsize for step in array.strides]
        self.pack(f'i{2 * array.ndim}q', array.ndim, *array.shape, *strides)
        if self.shared is None:
            self.pack('q', 1)
            storage = Object(
                f'torch.{self.tensor}Storage', arrays=[array.ravel()[:1] if self.hollow else array]
            )
            self.kept.append(storage)
        else:
            place = next(place for place, other in enumerate(self.shared) if other is array)
            self.pack('q', 1 + sum(other.size for other in self.shared[:place]))
            storage = self.shared_storage
        self.write(storage)


class Node:
    """A node of nngraph, with its value."""

    def __init__(self, module, *inputs, value=None):
        data = Table(mapindex=Table(source.data for source in inputs), annotations=Table())
        data.fields['mapindex'].others = [(source.data, number) for number, source in enumerate(inputs, 1)]
        if module is not None:
            data.fields['module'] = module
            values = [source.value for source in inputs]
            value = module.run(values[0] if len(values) == 1 else values)
        self.data = data
        self.inputs = inputs
        self.value = value


def graph_module(inp, outputs, seed=0):
    """nn.gModule: forward and backward graph, and the forward nodes in some order that can be computed."""
    out = Node(None, *outputs)
    nodes, waiting = [], [out]
    while waiting:
        node = waiting.pop()
        if node not in nodes:
            nodes.append(node)
            waiting.extend(node.inputs)
    graphs = []
    for forward in (True, False):
        twins = {
            node: Object('nngraph.Node', data=node.data, children=Table(), visited=False, marked=False)
            for node in nodes
        }
        edges = [(source, node) if forward else (node, source) for node in nodes for source in node.inputs]
        for start, end in edges:
            children = twins[start].fields['children']
            children.items.append(twins[end])
            children.others.append((twins[end], len(children.items)))
        edges = Table(
            Object('graph.Edge', **{'from': twins[start], 'to': twins[end]}) for start, end in edges
        )
        graphs.append((twins, Object('graph.Graph', nodes=Table(twins.values()), edges=edges)))
    order, done, chance = [], set(), random.Random(seed)
    while len(order) < len(nodes):
        order.append(
            chance.choice([node for node in nodes if node not in done and done.issuperset(node.inputs)])
        )
        done.add(order[-1])
    (forward, fg), (backward, bg) = graphs
    return Object(
        'nn.gModule',
        fg=fg,
        bg=bg,
        forwardnodes=Table(forward[node] for node in order),
        backwardnodes=Table(backward[node] for node in reversed(order)),
        innode=forward[inp],
        outnode=backward[out],
        modules=Table(node.data.fields['module'] for node in order if 'module' in node.data.fields),
        nInputs=1,
        verbose=False,
        train=False,
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

    def normal(self, *shape, scale=1.0, offset=0.0):
        return (offset + scale * self.random.standard_normal(shape)).astype(np.float32)

    def conv(self, inputs, outputs, size=1, stride=1, padding=0):
        weight = self.normal(outputs, inputs, size, size, scale=(inputs * size**2) ** -0.5)
        bias = self.normal(outputs, scale=0.1)
        fields = dict(
            nInputPlane=inputs,
            nOutputPlane=outputs,
            kW=size,
            kH=size,
            dW=stride,
            dH=stride,
            padW=padding,
            padH=padding,
            weight=weight.reshape(outputs, -1) if self.old else weight,
            bias=bias,
            gradWeight=np.zeros_like(bias),
            gradBias=np.zeros_like(bias),
        )
        name = 'nn.SpatialConvolutionMM' if self.old else f'{self.backend}.SpatialConvolution'
        return Object(
            name,
            lambda x: F.conv2d(x, torch.from_numpy(weight), torch.from_numpy(bias), stride, padding),
            **fields,
        )

    def norm(self, channels):
        mean, bias = self.normal(channels, scale=0.1), self.normal(channels, scale=0.1)
        weight, var = self.normal(channels, scale=0.1, offset=1), 1 + abs(self.normal(channels, scale=0.2))
        statistics = dict(running_std=(var + 1e-5) ** -0.5) if self.old else dict(running_var=var)
        return Object(
            'nn.SpatialBatchNormalization',
            lambda x: F.batch_norm(x, *map(torch.from_numpy, (mean, var, weight, bias))),
            weight=weight,
            bias=bias,
            running_mean=mean,
            eps=1e-5,
            momentum=0.1,
            affine=True,
            **statistics,
        )

    def relu(self):
        return Object(f'{self.backend}.ReLU', torch.relu, inplace=True, threshold=0, val=0)

    def pool(self):
        fields = dict(kW=2, kH=2, dW=2, dH=2, padW=0, padH=0)
        return Object(f'{self.backend}.SpatialMaxPooling', lambda x: F.max_pool2d(x, 2), **fields)

    def upsample(self):
        return Object(
            'nn.SpatialUpSamplingNearest', lambda x: F.interpolate(x, scale_factor=2), scale_factor=2
        )

    def identity(self):
        return Object('nn.Identity', lambda x: x)

    def add(self):
        return Object('nn.CAddTable', sum, inplace=False, gradInput=Table([np.zeros(3, np.float32)]))

    def join(self):
        return Object('nn.JoinTable', lambda x: torch.cat(x, 1), dimension=2)

    def sequential(self, *modules):
        def run(x):
            for module in modules:
                x = module.run(x)
            return x

        return Object('nn.Sequential', run, modules=Table(modules))

    def fork(self, *modules):
        return Object(
            'nn.ConcatTable', lambda x: [module.run(x) for module in modules], modules=Table(modules)
        )


def preact_residual(nn, inputs, outputs):
    """The training code's: BN-ReLU-conv three times."""
    middle = outputs // 2
    block = nn.sequential(
        nn.norm(inputs),
        nn.relu(),
        nn.conv(inputs, middle),
        nn.norm(middle),
        nn.relu(),
        nn.conv(middle, middle, 3, padding=1),
        nn.norm(middle),
        nn.relu(),
        nn.conv(middle, outputs),
    )
    skip = nn.identity() if inputs == outputs else nn.sequential(nn.conv(inputs, outputs))
    return nn.sequential(nn.fork(block, skip), nn.add())


def postact_residual(nn, inputs, outputs):
    """The first version's: conv-BN-ReLU, the last ReLU after the sum."""
    middle = outputs // 2
    block = nn.sequential(
        nn.conv(inputs, middle),
        nn.norm(middle),
        nn.relu(),
        nn.conv(middle, middle, 3, padding=1),
        nn.norm(middle),
        nn.relu(),
        nn.conv(middle, outputs),
        nn.norm(outputs),
    )
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


def second_version(
    nn,
    image,
    num_stacks=2,
    channels=20,
    stem=(4, 8, 8),
    num_modules=1,
    num_keypoints=16,
    depth=4,
    residuals=True,
    seed=0,
):
    """The network of src/models/hg.lua, of the paper's second version: (nn.gModule, heatmaps of every stack).

    ``residuals=False`` leaves out those between an hourglass and its prediction, as an early revision did.
    """
    build = Builder(nn, preact_residual)
    inp, _, x = build.stem(image, *stem, channels)
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


def first_version(
    nn, image, residual, stem=(4, 8, 8, 8), channels=16, out_channels=32, num_keypoints=16, depth=4, seed=0
):
    """The network of src/models/hg-stacked.lua, of the paper's first version: (nn.gModule, both heatmaps)."""
    build = Builder(nn, residual)
    inp, pooled, x = build.stem(image, *stem, channels)
    wide = channels + stem[1]
    first = build.hourglass(depth, x, channels, channels, out_channels, 3, 1)
    first = build.linear(build.linear(first, out_channels, out_channels), out_channels, channels)
    heatmaps = Node(nn.conv(channels, num_keypoints), first)
    joined = Node(nn.conv(wide, wide), Node(nn.join(), first, pooled))
    x = Node(nn.add(), joined, Node(nn.conv(num_keypoints, wide), heatmaps))
    second = build.hourglass(depth, x, wide, channels, out_channels, 3, 1)
    second = build.linear(build.linear(second, out_channels, out_channels), out_channels, out_channels)
    outputs = [heatmaps, Node(nn.conv(out_channels, num_keypoints), second)]
    return graph_module(inp, outputs, seed), [output.value for output in outputs]


def save_torch7(path, content, **kwargs):
    with open(path, 'wb') as file:
        Writer(file, **kwargs).save(content)
