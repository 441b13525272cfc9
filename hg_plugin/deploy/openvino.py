"""OpenVINO's pairs of files, made from ONNX."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .onnx import to_onnx


def to_openvino(network: nn.Module, image: Tensor, outputs: Sequence[str], metadata: dict[str, str]):
    """Export to OpenVINO with ``metadata`` in its rt_info under 'hg_plugin'; see ``EXPORTERS``."""
    import openvino

    files, _ = to_onnx(network, image, outputs, {})
    model = openvino.Core().read_model(files['.onnx'])
    for key, value in metadata.items():
        model.set_rt_info(value, ['hg_plugin', key])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'model.xml')
        openvino.save_model(model, path, compress_to_fp16=False)
        # newer CPUs default to less than float32
        compiled = openvino.compile_model(path, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})
        files = {suffix: path.with_suffix(suffix).read_bytes() for suffix in ('.xml', '.bin')}
    return files, lambda image: [torch.from_numpy(array) for array in compiled(image.numpy()).to_tuple()]
