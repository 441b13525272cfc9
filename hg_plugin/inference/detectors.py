"""Find persons in images, with a detector of MMDetection or an ONNX file of YOLOX's kind."""

from collections.abc import Callable
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from hg_plugin.utils.errors import InputError, need_packages

# a function from an image (H, W, 3) uint8 BGR to boxes (N, 5): left, top, right, bottom and score
Detector = Callable[[np.ndarray], np.ndarray]


def default_device() -> str:
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def boxes_inside(detector: Detector, image: np.ndarray) -> np.ndarray:
    """Detect persons, and clip their boxes to the image. Those of less than a pixel are dropped."""
    boxes = np.array(detector(image), np.float32)
    height, width = image.shape[:2]
    boxes[:, :4] = boxes[:, :4].clip(0, [width, height, width, height])
    return boxes[(boxes[:, 2:4] - boxes[:, :2] >= 1).all(axis=1)]


def mmdet_detector(
    config: str | PathLike,
    checkpoint: str | PathLike,
    device: torch.device | str | None = None,
    min_score: float = 0.3,
) -> Detector:
    """Return a detector of MMDetection, used as MMPose's ``topdown_demo_with_mmdet.py`` uses it.

    Args:
        config, checkpoint: MMDetection's, whose category 0 is a person, as in COCO.
        device: Where it runs. Defaults to None: a GPU if torch can use one.
        min_score: Lowest score of a person. Defaults to 0.3.

    Raises:
        InputError: MMDetection is not installed.
    """
    need_packages('A detector with a config', 'mmdet')
    from mmdet.apis import inference_detector, init_detector
    from mmpose.evaluation.functional import nms
    from mmpose.utils import adapt_mmdet_pipeline

    detector = init_detector(str(config), str(checkpoint), device=str(device or default_device()))
    detector.cfg = adapt_mmdet_pipeline(detector.cfg)

    def detect(image: np.ndarray) -> np.ndarray:
        found = inference_detector(detector, image).pred_instances.cpu().numpy()
        boxes = np.concatenate([found.bboxes, found.scores[:, None]], axis=1)
        boxes = boxes[(found.labels == 0) & (found.scores >= min_score)]
        return boxes[nms(boxes, 0.3)]

    return detect


def onnx_detector(
    path: str | PathLike, device: torch.device | str | None = None, min_score: float = 0.3
) -> Detector:
    """Return a detector that is an ONNX file of YOLOX's kind, as rtmlib runs it.

    The file either ends in a non-maximum suppression, with boxes (1, N, 5) and perhaps their categories
    (1, N), as MMDeploy's YOLOX and RTMDet; or it has YOLOX's raw output (1, N, 5 + categories), of which
    rtmlib gives no scores. Category 0 is a person.

    Args:
        path: The file. Its input is (1, 3, H, W), or of any size, which is taken as 640x640.
        device: Where it runs. Defaults to None: a GPU if torch can use one.
        min_score: Lowest score of a person. Defaults to 0.3.

    Raises:
        InputError: rtmlib or ONNX Runtime is not installed, or the file is no such detector.
    """
    need_packages('A detector in an ONNX file', 'rtmlib', 'onnxruntime')
    from rtmlib import YOLOX

    kind = torch.device(device or default_device()).type
    try:
        if not Path(path).is_file():  # rtmlib would download it
            raise FileNotFoundError('it does not exist')
        yolox = YOLOX(str(path), score_thr=min_score, backend='onnxruntime', device=kind)
        yolox.det_mode = yolox.mode = 'multiclass'  # its name depends on the version
        height, width = yolox.session.get_inputs()[0].shape[2:]
        yolox.model_input_size = (height, width) if isinstance(height, int) else (640, 640)
        _detect(yolox, np.zeros((64, 64, 3), np.uint8), min_score)
    except Exception as error:  # ONNX Runtime raises anything for a file of another kind
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} is no detector of YOLOX's kind ({reason}); give an ONNX file of YOLOX or RTMDet."
        ) from error
    return lambda image: _detect(yolox, image, min_score)


def _detect(yolox, image: np.ndarray, min_score: float) -> np.ndarray:
    """Run rtmlib's YOLOX. Its own call mixes all categories, and drops scores."""
    inputs, ratio = yolox.preprocess(image)
    outputs = yolox.inference(inputs)
    if outputs[0].shape[-1] == 5:
        boxes = outputs[0][0] / [ratio, ratio, ratio, ratio, 1]
        persons = boxes[:, 4] >= min_score
        return boxes[persons & (outputs[1][0] == 0)] if len(outputs) > 1 else boxes[persons]
    boxes, categories = yolox.postprocess(outputs[0], ratio)
    boxes = np.reshape(boxes, (-1, 4))[categories == 0]
    return np.column_stack([boxes, np.ones(len(boxes))])
