"""ONNX files that compute in 8 bits: ONNX Runtime's static quantization, calibrated on images."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from hg_plugin.utils.heatmaps import heatmap_peaks
from hg_plugin.utils.progress import Progress

from .onnx import onnx_runner


def quantize(float32: bytes, inputs: Sequence[Tensor]) -> tuple[bytes, float]:
    """Quantize an ONNX file to int8 weights, with one scale per channel, and uint8 activations.

    The last convolution and what follows stay in float32. Normalized ``inputs`` (1, 3, H, W) determine the
    ranges of the activations. Return the int8 file, and the share of its heatmaps of ``inputs`` that peak
    within a pixel of float32's.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static

    def feed():
        with Progress(len(inputs), 'images') as progress:
            for image in inputs:
                yield {'image': image.numpy()}
                progress.update()

    feed = feed()
    nodes = onnx.load_from_string(float32).graph.node
    # 8 bits are too few for heatmaps, and for their logits
    last = max(index for index, node in enumerate(nodes) if node.op_type == 'Conv')
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
            nodes_to_exclude=[node.name for node in nodes[last:]],
            reduce_range=True,  # 7-bit weights: with 8, sums overflow 16 bits on CPUs without VNNI
            extra_options=dict(CalibMovingAverage=True),  # else one outlier among all images sets a range
        )
        int8 = target.read_bytes()
    pairs = zip(
        *([heatmap_peaks(run(image)[0])[1] for image in inputs] for run in map(onnx_runner, (float32, int8)))
    )
    near = [((found - expected).abs().amax(dim=2) <= 1).float() for expected, found in pairs]
    return int8, torch.cat(near).mean().item()
