"""One image that shows what a model has learned."""

import os.path as osp

import cv2
import mmcv
import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmpose.structures import PoseDataSample

from hg_plugin.visualization import crop_person, draw_skeleton


@HOOKS.register_module()
class PredictionGridHook(Hook):
    """Write a grid of persons after a test: the prediction on the left, the ground truth on the right.

    Args:
        num_persons: Persons in the grid, the first of the test dataset. Defaults to 24.
        num_columns: Persons in a row. Defaults to 4.
        person_size: Side of a person's crop in pixels. Defaults to 192.
        out_file: The image, relative to the work directory. Defaults to 'predictions.png'.
    """

    priority = 'LOW'

    def __init__(
        self,
        num_persons: int = 24,
        num_columns: int = 4,
        person_size: int = 192,
        out_file: str = 'predictions.png',
    ):
        self.num_persons = num_persons
        self.num_columns = num_columns
        self.person_size = person_size
        self.out_file = out_file

    def before_test_epoch(self, runner: Runner) -> None:
        self.cells = []

    @master_only
    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        for sample in outputs[: self.num_persons - len(self.cells)]:
            self.cells.append(self._draw(sample, runner.test_dataloader.dataset.metainfo))

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        if not self.cells:
            return
        cells, columns = self.cells, self.num_columns
        cells += [np.full_like(cells[0], 255)] * (-len(cells) % columns)
        grid = np.vstack([np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)])
        caption = np.full((28, grid.shape[1], 3), 255, np.uint8)
        text = 'left of each pair: prediction, right: ground truth'
        cv2.putText(caption, text, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
        path = osp.join(runner.work_dir, self.out_file)
        mmcv.imwrite(np.vstack([caption, grid]), path)
        runner.logger.info(f'Predictions beside the ground truth: {path}')

    def _draw(self, sample: PoseDataSample, dataset_meta: dict) -> np.ndarray:
        """A cell (person_size, 2 * person_size, 3) in BGR."""
        image = mmcv.imread(sample.img_path)
        crop, matrix = crop_person(image, sample.input_center, sample.input_scale, self.person_size)
        visible = np.asarray(sample.gt_instances.keypoints_visible)[0]
        annotated = visible.reshape(len(visible), -1)[:, 0] > 0  # KeypointConverter appends weights
        halves = []
        for instances in (sample.pred_instances, sample.gt_instances):
            keypoints = cv2.transform(np.asarray(instances.keypoints, dtype=np.float64)[:1, :, :2], matrix)[0]
            halves.append(draw_skeleton(crop.copy(), keypoints, annotated, dataset_meta))
        cell = np.hstack(halves)
        cell[:, -2:] = 255
        return cell
