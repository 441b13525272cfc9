"""TorchScript files, run by torch or libtorch."""

import io
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def to_torchscript(network: nn.Module, image: Tensor, outputs: Sequence[str], metadata: dict[str, str]):
    """Export to TorchScript with ``metadata`` as extra files; see ``EXPORTERS``."""
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.freeze(torch.jit.trace(network, image)), buffer, _extra_files=metadata)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)

    def run(image: Tensor) -> list[Tensor]:
        found = loaded(image)
        return [found] if isinstance(found, Tensor) else list(found)

    return {'.pt': buffer.getvalue()}, run
