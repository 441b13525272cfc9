"""Networks as int8 ONNX files: ONNX Runtime's static quantisation, calibrated on pictures."""

import logging
import os.path as osp
import tempfile
from collections.abc import Sequence

import numpy as np
import torch

from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.heatmaps import heatmap_peaks
from hg_plugin.utils.progress import Progress

from .export import ONNX, export, need_packages


class Calibration(Progress):
    """What ``onnxruntime.quantization`` reads (1, 3, H, W) inputs from."""

    def __init__(self, inputs: Sequence[np.ndarray]):
        super().__init__(len(inputs), 'pictures')
        self.inputs = iter(inputs)

    def get_next(self) -> dict | None:
        """The next input by name, and None behind the last one."""
        image = next(self.inputs, None)
        if image is None:
            return None
        self.update()
        return {'image': image}


def quantize(float32: str, int8: str, inputs: Sequence[np.ndarray]) -> None:
    """Writes an ONNX file with int8 weights, a scale a channel, and uint8 activations, whose ranges
    ``inputs`` show."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)  # it recommends a preparation that changes nothing in these files
    try:
        with Calibration(inputs) as calibration:
            quantize_static(
                float32,
                int8,
                calibration,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options=dict(
                    CalibMovingAverage=True
                ),  # or the one largest value of all pictures sets the range
                reduce_range=True,
            )  # weights of 7 bits, because 8 overflow 16-bit sums on CPUs without VNNI
    finally:
        logger.setLevel(level)


def export_int8(config: str, checkpoint: str, out: str, pictures: Sequence[str]) -> float:
    """Writes a trained network to an ONNX file that computes with 8 bits where :func:`export`'s computes with
    32.

    Input, output and metadata are those of :func:`export`. ONNX Runtime and OpenVINO run it;
    ``benchmarks/inference.py`` measures how much faster it is on a CPU, and what it costs in PCKh.

    Args:
        config: Config file with a :class:`StackedHourglass`.
        checkpoint: Its trained weights.
        out: The file to write: .onnx.
        pictures: Paths of photographs with a person each, as the network will see them: some dozens. They go
            through the pipeline of the config's ``test_dataloader``, the whole picture as a person's box.

    Returns:
        The share of keypoints whose heatmaps on these pictures peak within a pixel of where float32's peak.

    Raises:
        InputError: as for :func:`export`; without pictures, and for those that cannot be read.
    """
    if not pictures:
        raise InputError(
            f'{out}: quantisation needs pictures to see how large activations become; give some dozens.'
        )
    if osp.splitext(out)[1] != '.onnx':
        raise InputError(f'{out}: the name of a file for int8 must end in .onnx.')
    need_packages('Quantisation', *ONNX)
    import onnxruntime

    estimator = PoseEstimator(config, checkpoint, device='cpu')
    inputs = [estimator.inputs(picture).numpy() for picture in pictures]
    with atomic_write(out) as file, tempfile.TemporaryDirectory() as folder:
        float32, int8 = osp.join(folder, 'float32.onnx'), osp.join(folder, 'int8.onnx')
        export(config, checkpoint, float32)
        quantize(float32, int8, inputs)
        networks = [
            onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider']) for path in (float32, int8)
        ]
        near = []
        for image in inputs:
            expected, found = (
                heatmap_peaks(torch.from_numpy(network.run(None, {'image': image})[0]))[1]
                for network in networks
            )
            near.append(((found - expected).abs().amax(dim=2) <= 1).float().mean().item())
        with open(int8, 'rb') as content:
            file.write(content.read())
    return float(np.mean(near))
