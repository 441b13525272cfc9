"""OpenVINO's pairs of files, made from ONNX."""

import functools
import tempfile
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from .onnx import to_onnx


@functools.cache
def core():
    """The one Core of this process.

    Each Core moves the stack of signal handlers to memory of its own. After two that end in the order in
    which they began, as those of ``openvino.compile_model``, the next signal ends Python (OpenVINO 2026.4).
    """
    import openvino

    return openvino.Core()


def openvino_runner(path: str | PathLike, bfloat16: bool = False) -> Callable[[Tensor], list[Tensor]]:
    """Return a function from images (N, 3, H, W) to the outputs of a file on the CPU.

    In float32, or with ``bfloat16`` in what OpenVINO chooses, which is less on newer CPUs.
    """
    hints = {} if bfloat16 else {'INFERENCE_PRECISION_HINT': 'f32'}
    compiled = core().compile_model(path, 'CPU', hints)
    return lambda image: [torch.from_numpy(array) for array in compiled(image.numpy()).to_tuple()]


def to_openvino(
    network: nn.Module,
    image: Tensor,
    outputs: Sequence[str],
    metadata: dict[str, str],
    multiple: int | None = None,
):
    """Export to OpenVINO with ``metadata`` in its rt_info under 'hg_plugin'; see ``EXPORTERS``."""
    import openvino

    files, _ = to_onnx(network, image, outputs, {}, multiple)
    model = core().read_model(files['.onnx'])
    for key, value in metadata.items():
        model.set_rt_info(value, ['hg_plugin', key])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'model.xml')
        openvino.save_model(model, path, compress_to_fp16=False)
        run = openvino_runner(path)
        files = {suffix: path.with_suffix(suffix).read_bytes() for suffix in ('.xml', '.bin')}
    return files, run
