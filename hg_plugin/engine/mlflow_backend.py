"""MLflow as a backend of the visualizer, with names that it takes."""

import re

import numpy as np
from mmengine.registry import VISBACKENDS
from mmengine.visualization import MLflowVisBackend


def allowed(name: str) -> str:
    """``Mean_at_0.1`` for ``Mean@0.1``: MLflow takes letters, digits and ``_-./``."""
    return re.sub(r'[^\w\-./]', '_', name.replace('@', '_at_'))


@VISBACKENDS.register_module()
class SafeMLflowVisBackend(MLflowVisBackend):
    """MMEngine's ``MLflowVisBackend``, with names that MLflow takes; images get a suffix and their step.

    :func:`hg_plugin.training.runner.load_config` puts it in the place of MMEngine's.
    """

    def add_image(self, name: str, image: np.ndarray, step: int = 0, **kwargs) -> None:
        super().add_image(f'{allowed(name)}_{step}.png', image, step, **kwargs)

    def add_scalar(self, name: str, value, step: int = 0, **kwargs) -> None:
        super().add_scalar(allowed(name), value, step, **kwargs)

    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs) -> None:
        named = {allowed(name): value for name, value in scalar_dict.items()}
        super().add_scalars(named, step, file_path, **kwargs)
