"""ONNX files, run by ONNX Runtime."""

from collections.abc import Callable, Sequence
from os import PathLike

import torch
from torch import Tensor, nn

from hg_plugin.compat.torch import torch_before
from hg_plugin.utils.errors import InputError

ONNX_PACKAGES = ('onnx', 'onnxscript', 'onnxruntime')


def onnx_runner(content: bytes | str | PathLike, bfloat16: bool = False) -> Callable[[Tensor], list[Tensor]]:
    """Return a function from images (N, 3, H, W) to the outputs of an ONNX file on the CPU, in float32."""
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])
    return lambda image: [torch.from_numpy(array) for array in session.run(None, {'image': image.numpy()})]


def to_onnx(
    network: nn.Module,
    image: Tensor,
    outputs: Sequence[str],
    metadata: dict[str, str],
    multiple: int | None = None,
):
    """Export to ONNX with a dynamic batch and ``metadata`` as metadata_props; see ``EXPORTERS``.

    With ``multiple``, height and width are dynamic, too, and must be multiples of it.
    """
    if torch_before('2.7'):
        raise InputError(f'The export to ONNX needs torch 2.7, not {torch.__version__}; use a newer torch.')
    shape = {0: torch.export.Dim('batch')}
    if multiple:
        shape |= {2: multiple * torch.export.Dim('rows'), 3: multiple * torch.export.Dim('columns')}
    program = torch.onnx.export(
        network,
        (image,),
        input_names=['image'],
        output_names=outputs,
        opset_version=18,
        dynamo=True,
        dynamic_shapes=(shape,),
        verbose=False,
    )
    model = program.model_proto
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # among other things, paths of this machine
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    content = model.SerializeToString()
    return {'.onnx': content}, onnx_runner(content)
