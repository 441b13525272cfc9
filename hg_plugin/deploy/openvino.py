"""OpenVINO's pairs of files, made from ONNX."""

import tempfile
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from .onnx import to_onnx


def openvino_runner(path: str | PathLike, bfloat16: bool = False) -> Callable[[Tensor], list[Tensor]]:
    """Return a function from images (N, 3, H, W) to the outputs of a file on the CPU.

    In float32, or with ``bfloat16`` in what OpenVINO chooses, which is less on newer CPUs.
    """
    import openvino

    hints = {} if bfloat16 else {'INFERENCE_PRECISION_HINT': 'f32'}
    compiled = openvino.compile_model(path, 'CPU', hints)
    return lambda image: [torch.from_numpy(array) for array in compiled(image.numpy()).to_tuple()]


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
        run = openvino_runner(path)
        files = {suffix: path.with_suffix(suffix).read_bytes() for suffix in ('.xml', '.bin')}
    return files, run
