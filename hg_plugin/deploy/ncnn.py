"""ncnn's pairs of files, made from ONNX by pnnx.

ncnn computes 3x3 convolutions by Winograd's algorithm, with fewer multiplications than the other back ends.
"""

import copy
import json
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .onnx import to_onnx


def ncnn_runner(stem: str, threads: int = 0) -> Callable[[Tensor], Tensor]:
    """Return a function from images (N, 3, H, W), run one by one in float32, to heatmaps (N, K, H/4, W/4).

    Args:
        stem: Path of the .param and .bin files without the suffix.
        threads: Largest number of threads. Defaults to 0: chosen by ncnn.

    Raises:
        RuntimeError: If ncnn cannot read or run the files.
    """
    import ncnn

    net = ncnn.Net()
    for option in ('use_fp16_packed', 'use_fp16_storage', 'use_fp16_arithmetic', 'use_bf16_storage'):
        setattr(net.opt, option, False)
    net.opt.num_threads = threads or net.opt.num_threads
    if net.load_param(f'{stem}.param') or net.load_model(f'{stem}.bin'):
        raise RuntimeError(f'ncnn cannot read {stem}.param with its .bin')

    def run(image: Tensor) -> Tensor:
        array = np.ascontiguousarray(image.numpy(), np.float32)  # keep it: ncnn.Mat does not own its pixels
        extractor = net.create_extractor()
        extractor.input('image', ncnn.Mat(array))
        status, heatmaps = extractor.extract('heatmaps')
        if status:
            raise RuntimeError(f'ncnn cannot run {stem}.param with its .bin')
        return torch.from_numpy(np.array(heatmaps))

    return lambda images: torch.stack([run(image) for image in images])


def norms_as_convolutions(network: nn.Module) -> nn.Module:
    """Return a copy with depthwise convolutions for batch norms: ncnn fuses those with the next ReLU."""
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, _BatchNorm) and norm.running_var is not None:
                channels = norm.num_features
                identity = nn.Conv2d(channels, channels, 1, groups=channels, bias=False).eval()
                nn.init.ones_(identity.weight)
                setattr(parent, name, fuse_conv_bn_eval(identity, norm))
    return network


def to_ncnn(network: nn.Module, image: Tensor, outputs: Sequence[str], metadata: dict[str, str]):
    """Export to ncnn, for one image at a time, with ``metadata`` in a JSON file; see ``EXPORTERS``."""
    import pnnx

    files, _ = to_onnx(norms_as_convolutions(network), image, outputs, {})
    height, width = image.shape[2:]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, 'model.onnx').write_bytes(files['.onnx'])
        command = [pnnx.EXEC_PATH, 'model.onnx', f'inputshape=[1,3,{height},{width}]', 'fp16=0']
        subprocess.run(command, cwd=folder, capture_output=True, check=True)
        param, weights = Path(folder, 'model.ncnn.param'), Path(folder, 'model.ncnn.bin')
        graph = re.sub(r'\bin0\b', 'image', param.read_text('utf-8'))
        param.write_text(re.sub(r'\bout0\b', 'heatmaps', graph))
        run = ncnn_runner(f'{folder}/model.ncnn')
        files = {'.param': param.read_bytes(), '.bin': weights.read_bytes()}
    values = {key: json.loads(value) for key, value in metadata.items()}
    return files | {'.json': json.dumps(values, indent=2).encode()}, lambda image: [run(image)]
