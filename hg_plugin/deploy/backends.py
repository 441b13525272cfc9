"""Pose estimation with an exported network in place of torch's."""

import os
from collections.abc import Callable
from functools import cached_property
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
    ``torch.hub.get_dir()``, named after the weights. The heatmaps of all stages, for ``heatmaps=True``, are
    torch's.

    Args:
        *args: ``config``, ``checkpoint`` and more of the base class.
        backend: 'torch', 'onnxruntime' or 'openvino', on the CPU. Defaults to 'torch'.
        **kwargs: More of the base class. With ``bfloat16``, OpenVINO chooses the precision, which is less on
            newer CPUs; ONNX Runtime computes in float32.

    Raises:
        InputError: As the base class; for another backend, or one whose packages are missing; and when the
            network is exported, if the file cannot be written.
    """

    def __init__(self, *args, backend: str = 'torch', **kwargs):
        if backend not in ('torch', *RUNNERS):
            raise InputError(f"backend is '{backend}'; choose one of torch, {', '.join(RUNNERS)}.")
        super().__init__(*args, **kwargs)
        self.backend = backend
        if backend != 'torch':
            need_packages(f'The backend {backend}', *EXPORTERS[RUNNERS[backend][0]][2])
            if self.device.type != 'cpu' or not self.cfg.filename:
                raise InputError(f'The backend {backend} needs a config file, and the device cpu.')

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
            options = self.cfg_options
            export(self.cfg.filename, str(checkpoint), str(file), format=format, cfg_options=options)
        return runner(file, self.bfloat16)

    def _stages(self, inputs: Tensor, all_stages: bool) -> list[Tensor]:
        if self.backend == 'torch' or all_stages:
            return super()._stages(inputs, all_stages)
        return self._run(inputs)
