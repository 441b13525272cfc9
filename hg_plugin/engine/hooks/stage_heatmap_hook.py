"""Images of a few validation persons during training, stack by stack, and of test persons after a test."""

import contextlib
import os.path as osp
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from hg_plugin.utils.images import as_bgr
from hg_plugin.utils.randomness import preserved
from hg_plugin.visualization import draw_beside_truth, stage_sheet, write_grid


@HOOKS.register_module()
class StageHeatmapHook(Hook):
    """Draw a few fixed validation persons during training, one image a person and step.

    An image has the input, the ground truth, and every stack's skeleton and heatmaps, see
    :func:`hg_plugin.visualization.stage_sheet`. It goes to all backends of the run's visualizer: local files,
    TensorBoard, Weights & Biases. The persons pass through the network as it is trained, without averaged
    weights and flip test, in evaluation mode. Neither random numbers nor the state of the network change, so
    a training computes the same with this hook as without.

    Nothing is drawn in a run without a validation dataset, or of a network whose head gives no heatmaps.

    After a test, the first persons are drawn in one grid, the prediction beside the ground truth, in the work
    directory's ``predictions.png``.

    Args:
        interval: Epochs between two images, or iterations. Defaults to 1.
        persons: How many persons, spread over the validation dataset, or their indices. Defaults to 4.
        by_epoch: Whether ``interval`` counts epochs. Defaults to True.
        test_persons: How many persons are drawn after a test. Defaults to 0.
    """

    priority = 'LOW'

    def __init__(
        self,
        interval: int = 1,
        persons: int | Sequence[int] = 4,
        by_epoch: bool = True,
        test_persons: int = 0,
    ):
        self.interval = interval
        self.persons = persons
        self.by_epoch = by_epoch
        self.test_persons = test_persons
        self.cells: list[np.ndarray] = []
        self.samples: dict[int, dict] | None = None  # loaded once, by their index

    @master_only
    def after_train_epoch(self, runner: Runner) -> None:
        if self.by_epoch and self.every_n_epochs(runner, self.interval):
            self._draw(runner, runner.epoch + 1)

    @master_only
    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if not self.by_epoch and self.every_n_train_iters(runner, self.interval):
            self._draw(runner, runner.iter + 1)

    def before_test_epoch(self, runner: Runner) -> None:
        self.cells = []

    @master_only
    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        for sample in outputs[: self.test_persons - len(self.cells)]:
            self.cells.append(draw_beside_truth(sample, runner.test_dataloader.dataset.metainfo))

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        if not self.cells:
            return
        path = osp.join(runner.work_dir, 'predictions.png')
        write_grid(path, self.cells, 'left of each pair: prediction, right: ground truth')
        runner.logger.info(f'Predictions beside the ground truth: {path}')

    def _draw(self, runner: Runner, step: int) -> None:
        if runner.val_loop is None or self.samples == {}:
            return
        dataset = runner.val_dataloader.dataset
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        with preserved(), _evaluating(model), torch.no_grad():
            if self.samples is None:
                indices = self.persons
                if isinstance(indices, int):
                    number = min(indices, len(dataset))
                    indices = np.linspace(0, len(dataset) - 1, number).round().astype(int).tolist()
                self.samples = {index: dataset[index] for index in indices}
            stages = _forward(model, [*self.samples.values()])
            if stages is None:
                runner.logger.warning('StageHeatmapHook draws nothing, because the head gives no heatmaps.')
                self.samples = {}
                return
            points = [[one.keypoints[0] for one in model.head.decode(maps)] for maps in stages]
        heatmaps = torch.stack(stages, dim=1).float().cpu().numpy()
        for number, (index, sample) in enumerate(self.samples.items()):
            truth, annotated = _truth(sample['data_samples'])
            step_of_joints = heatmaps.shape[2] // len(truth)  # two offsets may follow each heatmap
            sheet = stage_sheet(
                crop=as_bgr(sample['inputs'].permute(1, 2, 0).numpy()),
                truth=truth,
                annotated=annotated if annotated.any() else ~annotated,
                heatmaps=heatmaps[number][:, ::step_of_joints],
                keypoints=np.stack([stage[number] for stage in points]),
                dataset_meta=dataset.metainfo,
            )
            rgb = np.ascontiguousarray(sheet[..., ::-1])
            runner.visualizer.add_image(f'val_person{index}', rgb, step)


def _forward(model: nn.Module, samples: list[dict]) -> list[Tensor] | None:
    """Heatmaps (N, K, h, w) of every stack, or None."""
    head = getattr(model, 'head', None)
    if getattr(head, 'decoder', None) is None:
        return None
    inputs = model.data_preprocessor(pseudo_collate(samples), False)['inputs']
    stacks = head.forward(model.extract_feat(inputs))
    stacks = [stacks] if isinstance(stacks, Tensor) else list(stacks)
    return stacks if all(isinstance(maps, Tensor) and maps.ndim == 4 for maps in stacks) else None


def _truth(sample) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (K, 2) in pixels of the input, of which ``annotated`` (K,) are."""
    size, scale, center = (np.asarray(sample.metainfo[f'input_{key}']) for key in ('size', 'scale', 'center'))
    points = np.asarray(sample.gt_instances.keypoints, np.float64)[0, :, :2]
    visible = np.asarray(sample.gt_instances.keypoints_visible).reshape(len(points), -1)[:, 0]
    return (points - center + 0.5 * scale) / scale * size, visible > 0


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, and afterwards every module's own mode: some are frozen during training."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
