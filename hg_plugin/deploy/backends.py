"""Pose estimation with an exported network in place of torch's."""

import os
from collections.abc import Callable
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from hg_plugin.inference import pose_estimator
from hg_plugin.utils.checkpoint import digest
from hg_plugin.utils.errors import InputError, need_packages

from .export import EXPORTERS, export
from .onnx import onnx_runner
from .openvino import openvino_runner

# format of the export, and what runs its file
RUNNERS: dict[str, tuple[str, Callable]] = dict(
    onnxruntime=('onnx', onnx_runner), openvino=('openvino', openvino_runner)
)


class PoseEstimator(pose_estimator.PoseEstimator):
    """A :class:`~hg_plugin.inference.pose_estimator.PoseEstimator` whose network another library may run.

    The network is exported when it is first needed, to a file beside the checkpoint: ``NAME_heatmaps.onnx``
    or ``.xml`` and ``.bin`` for NAME.pth. It is used again until the checkpoint is newer. Where that folder
    is read-only, as that of an installed package may be, the file is in ``hg_plugin/`` of
    ``torch.hub.get_dir()``, named after the weights. torch computes the heatmaps of all stages, for
    ``heatmaps=True``, and the coarse pass that finds persons, where the file does not take any size: that of
    'onnxruntime' does not, because torch is faster.

    Args:
        *args: ``config``, ``checkpoint`` and more of the base class.
        backend: 'torch', 'onnxruntime' or 'openvino', on the CPU; or an ONNX file that :func:`export` wrote,
            such as one in 8 bits with ``dynamic``, which OpenVINO runs if it is installed. Defaults to
            'torch'.
        **kwargs: More of the base class. With ``bfloat16``, OpenVINO chooses the precision, which is less on
            newer CPUs; ONNX Runtime computes in float32.

    Raises:
        InputError: As the base class; for another backend, one whose packages are missing, or a file of
            another network; and when the network is exported, if the file cannot be written.
    """

    def __init__(self, *args, backend: str | os.PathLike = 'torch', **kwargs):
        is_file = str(backend).endswith('.onnx')
        if backend not in ('torch', *RUNNERS) and not is_file:
            known = ', '.join(('torch', *RUNNERS))
            raise InputError(f"backend is '{backend}'; choose one of {known}, or a file that ends in .onnx.")
        super().__init__(*args, **kwargs)
        self.backend = backend
        if backend == 'torch':
            return
        if self.device.type != 'cpu' or not (is_file or self.cfg.filename):
            raise InputError(f'The backend {backend} needs a config file, and the device cpu.')
        if is_file:
            self._run = self._runner_of(Path(backend))
        else:
            need_packages(f'The backend {backend}', *EXPORTERS[RUNNERS[backend][0]][2])

    def _runner_of(self, file: Path) -> Callable[[Tensor], list[Tensor]]:
        """What runs a file with this network, which it first does once."""
        runner = 'openvino' if find_spec('openvino') else 'onnxruntime'
        need_packages(f'{file}', runner)
        if not file.is_file():
            raise InputError(f'{file} does not exist.')
        decoder = self.model.head.decoder
        expected = 1, self.num_keypoints * self._channels, *decoder.heatmap_size[::-1]
        try:
            run = RUNNERS[runner][1](file, self.bfloat16)
            shape = tuple(run(torch.zeros(1, 3, *decoder.input_size[::-1]))[0].shape)
        except Exception as error:  # both raise anything for a file of another kind
            raise InputError(f'{file} cannot be run ({error}); give what hg_plugin export wrote.') from error
        if shape != expected:
            raise InputError(
                f'{file} has outputs of {shape}, and the heatmaps of {self.config} have {expected}; export '
                'that network, without --decode.'
            )
        return run

    @cached_property
    def _run(self) -> Callable[[Tensor], list[Tensor]]:
        format, runner = RUNNERS[self.backend]
        checkpoint = Path(self.checkpoint)
        suffix = f'_heatmaps{EXPORTERS[format][1][0]}'
        file = checkpoint.with_name(f'{checkpoint.stem}{suffix}')
        if not os.access(file.parent, os.W_OK):
            cache = Path(torch.hub.get_dir(), 'hg_plugin')
            file = cache / f'{checkpoint.stem}_{digest(str(checkpoint))[:12]}{suffix}'
        if not file.exists() or file.stat().st_mtime < checkpoint.stat().st_mtime:
            any_size = self.backend == 'openvino' and hasattr(self.model.backbone, 'size_divisor')
            options = dict(format=format, dynamic=any_size, cfg_options=self.cfg_options)
            export(self.cfg.filename, str(checkpoint), str(file), **options)
        return runner(file, self.bfloat16)

    @cached_property
    def _any_size(self) -> bool:
        """Whether the file takes images of other sizes than the config's."""
        width, height = self.model.head.decoder.input_size
        try:
            self._run(torch.zeros(1, 3, 2 * height, 2 * width))
        except Exception:  # of a type of the library's own
            return False
        return True

    def _stages(self, inputs: Tensor, all_stages: bool) -> list[Tensor]:
        is_crop = inputs.shape[:1:-1] == tuple(self.model.head.decoder.input_size)
        if self.backend == 'torch' or all_stages or not (is_crop or self._any_size):
            return super()._stages(inputs, all_stages)
        return self._run(inputs)
