"""ONNX files that compute in 8 bits: ONNX Runtime's static quantization, calibrated on images."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from hg_plugin.utils.heatmaps import heatmap_peaks
from hg_plugin.utils.progress import Progress

from .onnx import onnx_runner


def quantize(float32: bytes, inputs: Sequence[Tensor]) -> tuple[bytes, float]:
    """Quantize an ONNX file to int8 weights, with one scale per channel, and uint8 activations.

    The first convolution, its activation and the layers that read this, and the convolution that gives
    heatmaps with what follows, stay in float32. Normalized ``inputs`` (1, 3, H, W) determine the ranges of
    the activations. Return the int8 file, and the share of its keypoints of ``inputs`` within a pixel of
    float32's heatmaps, which are a quarter of the input.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    def feed():
        with Progress(len(inputs), 'persons') as progress:
            for image in inputs:
                yield {'image': image.numpy()}
                progress.update()

    feed = feed()
    before = onnx.load_from_string(float32)
    graph = before.graph
    shapes = {weight.name: weight.dims for weight in graph.initializer}
    # 8 bits are too few for heatmaps, and for their logits; a convolution of one channel blurs, to decode
    convolutions = [index for index, node in enumerate(graph.node) if node.op_type == 'Conv']
    last = max(index for index in convolutions if shapes[graph.node[index].input[1]][1] > 1)

    def readers(nodes):
        outputs = {name for node in nodes for name in node.output}
        return [node for node in graph.node if outputs.intersection(node.input)]

    # with a dynamic size, OpenVINO 2026.4 computes nonsense from the first activation in 8 bits
    first = [graph.node[convolutions[0]]]
    activation = readers(first)
    stem = [*first, *activation, *readers(activation)]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, 'float32.onnx'), Path(folder, 'int8.onnx')
        source.write_bytes(float32)
        quantize_static(
            source,
            target,
            SimpleNamespace(get_next=lambda: next(feed, None)),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node.name for node in (*stem, *graph.node[last:])],
            reduce_range=True,  # 7-bit weights: with 8, sums overflow 16 bits on CPUs without VNNI
            extra_options=dict(CalibMovingAverage=True),  # else one outlier among all images sets a range
        )
        model = onnx.load(target)
    del model.metadata_props[:]  # to which ONNX Runtime adds one that is no JSON
    model.metadata_props.extend(before.metadata_props)
    int8 = model.SerializeToString()

    def keypoints(run: Callable[[Tensor], list[Tensor]]) -> Tensor:
        """(N, K, 2) in pixels of the heatmaps."""
        outputs = torch.cat([run(image)[0] for image in inputs])
        return outputs / 4 if outputs.ndim == 3 else heatmap_peaks(outputs)[1]

    expected, found = (keypoints(onnx_runner(content)) for content in (float32, int8))
    return int8, ((found - expected).abs().amax(dim=2) <= 1).float().mean().item()
