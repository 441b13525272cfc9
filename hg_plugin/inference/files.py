"""Estimate poses in image and video files; write MMPose's JSON, drawn skeletons and heatmap sheets."""

import contextlib
import errno
import sys
import textwrap
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path

import cv2
import mmengine
import numpy as np
from mmengine.structures import InstanceData
from mmpose.structures import split_instances

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.images import ImageError, Video, read_image
from hg_plugin.utils.progress import Progress
from hg_plugin.utils.screen import Window
from hg_plugin.visualization import draw_poses, heatmap_sheet

from .boxes import Boxes, boxes_and_scores, read_boxes
from .detectors import Detector, boxes_inside
from .inputs import Source, find_inputs, is_video, output_names
from .pose_estimator import PoseEstimator, Poses, PosesWithHeatmaps
from .smoothing import Smoother
from .video import ctrl_c_sets_event, open_video, replacing

# why a file of one name cannot be written where another may be
WRONG_NAME = errno.ENAMETOOLONG, errno.EISDIR, errno.EILSEQ, errno.EINVAL


def infer_files(
    config: str | PathLike | None,
    checkpoint: str | PathLike | None,
    inputs: str | PathLike | Sequence[str | PathLike],
    *,
    out_dir: str | PathLike = 'outputs',
    boxes: str | PathLike | Mapping[str, Sequence] | Sequence[Sequence[float]] | None = None,
    detector: Detector | None = None,
    draw: bool = True,
    show: bool = False,
    heatmaps: bool = False,
    smooth: bool = False,
    kpt_thr: float = 0.3,
    flip_test: bool = False,
    scales: Sequence[float] = (1.0,),
    batch_size: int = 16,
    device: str | None = None,
    cfg_options: dict | None = None,
) -> dict[Source, str]:
    """Find the keypoints of persons in images and videos, and write them to files, each whole or not at all.

    ``predictions/NAME.json`` has the format of MMPose's inferencers, a video's with all its frames. Persons
    also have ``unannotated_keypoints``, indices, where the network was trained on data without some; their
    scores are 0. Skeletons are drawn in ``visualizations/NAME.jpg`` or, for a video, ``.webm`` or ``.mp4``,
    see ``FORMATS`` in :mod:`hg_plugin.inference.video`. Heatmap sheets (see
    :func:`hg_plugin.visualization.heatmap_sheet`) are in ``heatmaps/NAME_person0.jpg`` or, for a video,
    ``heatmaps/NAME/frame000000_person0.jpg``. For NAME see :func:`output_names`. Progress goes to stderr. At
    most a batch of images is in memory. Ctrl-C ends a camera or stream; what was found until then is kept.

    Args:
        config, checkpoint, batch_size, device, cfg_options: See :class:`PoseEstimator`.
        inputs: Images, videos, folders of both, cameras such as '0', and addresses of streams, see
            :func:`find_inputs`.
        out_dir: The folder for the results. Defaults to 'outputs'.
        boxes: Boxes of persons in pixels, or a JSON file of them, for all inputs, by input or by frame, see
            :func:`read_boxes`. Where there are none, the detector finds them; without a detector, there is
            one person as large as the image. Defaults to None.
        detector: A function from an image to boxes and scores (N, 5), see
            :mod:`hg_plugin.inference.detectors`. Defaults to None.
        draw: Draw skeletons. Defaults to True.
        show: Show what is drawn in a window. Q or Esc ends a video. Defaults to False.
        heatmaps: Draw heatmap sheets, one per person. Defaults to False.
        smooth: Smooth keypoints over the frames of a video, see :class:`Smoother`. Defaults to False.
        kpt_thr: Lowest score of a keypoint that is drawn. Defaults to 0.3.
        flip_test, scales: See :meth:`PoseEstimator.__call__`.

    Returns:
        The inputs that were left out, with the reason: they cannot be read, their boxes are wrong, or their
        results cannot have such a name.

    Raises:
        InputError: If an input does not exist or could be overwritten, there are no boxes of any input, the
            results cannot be written, there is no screen to show them, or :class:`PoseEstimator` raises it.
    """
    inputs = find_inputs(inputs, out_dir)
    boxes = read_boxes(boxes, inputs) if boxes else {}
    window = Window('hg_plugin') if show else None
    estimator = PoseEstimator(config, checkpoint, device, batch_size, cfg_options)
    options = dict(flip_test=flip_test, scales=scales, heatmaps=heatmaps)
    results = _Results(estimator, options, Path(out_dir), draw, kpt_thr, boxes, detector, smooth, window)
    names, left_out = output_names(inputs), {}
    videos = [source for source in inputs if is_video(source)]
    images = [source for source in inputs if not is_video(source)]
    if images:
        results.write_images(images, names, left_out)
    for source in videos:
        with _leaving_out(source, left_out):
            results.write_video(source, names[source])
    if 2 * results.drawn < results.scored:
        print(
            f'Only {results.drawn / results.scored:.0%} of the keypoints are drawn: the scores of the others '
            f'are below {kpt_thr:g} (--kpt-thr). A box around each person may help, see --boxes and '
            '--det-onnx; or lower --kpt-thr.',
            file=sys.stderr,
        )
    return left_out


class _Results:
    """Estimate poses, and write them as :func:`infer_files` says.

    Attributes:
        scored (int): Keypoints that might have been drawn.
        drawn (int): Those of them whose scores reach ``kpt_thr``.
    """

    def __init__(
        self,
        estimator: PoseEstimator,
        options: dict,
        out_dir: Path,
        draw: bool,
        kpt_thr: float,
        boxes: dict[Source, Boxes],
        detector: Detector | None,
        smooth: bool,
        window: Window | None,
    ):
        self.estimator, self.options, self.out_dir = estimator, options, out_dir
        self.draw, self.heatmaps, self.kpt_thr = draw, options['heatmaps'], kpt_thr
        self.boxes, self.detector, self.smooth, self.window = boxes, detector, smooth, window
        self.draws = draw or window is not None
        self.dataset_meta = estimator.dataset_meta if self.draws or self.heatmaps else None
        self.drawn = self.scored = 0

    def write_images(
        self, paths: list[Source], names: dict[Source, str], left_out: dict[Source, str]
    ) -> None:
        def read():
            for path in paths:
                with _leaving_out(path, left_out):
                    image = read_image(path)
                    persons = self._persons(path, image)
                if path in left_out:
                    progress.update()
                else:
                    yield path, image, *persons

        with Progress(len(paths), 'images') as progress:
            for path, image, boxes, scores, poses in self._estimate(read()):
                name = names[path]
                with _leaving_out(path, left_out):
                    if self.heatmaps:
                        self._write_sheets(self.out_dir / 'heatmaps', name, poses)
                    if self.draws:
                        drawn = self._draw(image, poses, boxes)
                    if self.draw:
                        _write_jpeg(self.out_dir / 'visualizations' / f'{name}.jpg', drawn)
                    with atomic_write(self.out_dir / 'predictions' / f'{name}.json') as file:
                        file.write(predictions_json(self.estimator, poses, boxes, scores).encode())
                    if self.window and not self.window.show(drawn):
                        self.window = None
                progress.update()

    def write_video(self, source: Source, name: str) -> None:
        video = Video(source)
        smoother = Smoother(video.fps) if self.smooth else None
        frames = ((index, frame, *self._persons(source, frame, index)) for index, frame in enumerate(video))
        with contextlib.ExitStack() as files:
            file = files.enter_context(atomic_write(self.out_dir / 'predictions' / f'{name}.json'))
            if self.draw:
                writer = files.enter_context(open_video(self.out_dir / 'visualizations' / name, video))
            if self.heatmaps:
                sheets = files.enter_context(replacing(self.out_dir / 'heatmaps' / name, is_folder=True))
            progress = files.enter_context(
                Progress(video.num_frames, f'frames of {getattr(source, "name", name)}')
            )
            stopped = files.enter_context(ctrl_c_sets_event()) if video.is_live else None
            for index, frame, boxes, scores, poses in self._estimate(frames, one_by_one=video.is_live):
                persons = None
                if smoother:
                    keypoints, persons = smoother(boxes, poses.keypoints)
                    poses = poses._replace(keypoints=keypoints)
                if self.heatmaps:
                    self._write_sheets(sheets, f'frame{index:06d}', poses)
                if self.draws:
                    drawn = self._draw(frame, poses, boxes, persons)
                if self.draw:
                    writer.write(drawn)
                # item by item, in the layout of the whole list
                item = _json(dict(frame_id=index, instances=_instances(self.estimator, poses, boxes, scores)))
                file.write(f'{"," if index else "["}\n{textwrap.indent(item, "  ")}'.encode())
                progress.update()
                if (self.window and not self.window.show(drawn, 1)) or (stopped and stopped.is_set()):
                    break
            file.write(b'\n]')

    def _persons(self, source: Source, image: np.ndarray, frame: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (N, 4) and scores (N,) of an image or frame."""
        boxes = self.boxes.get(source)
        if boxes is None and self.detector:
            boxes = boxes_inside(self.detector, image)
        return boxes_and_scores(boxes, image, frame)

    def _estimate(self, items: Iterable[tuple], one_by_one: bool = False) -> Iterator[tuple]:
        """Yield (key, image, boxes, scores, poses) for every (key, image, boxes, scores).

        Args:
            items: Images, see above.
            one_by_one: Do not wait for a batch. Defaults to False.
        """
        waiting = deque()

        def images():
            for item in items:
                waiting.append(item)
                yield item[1:3]

        if one_by_one:
            found = (self.estimator(*item, **self.options) for item in images())
        else:
            found = self.estimator.stream(images(), **self.options)
        for poses in found:
            yield *waiting.popleft(), poses

    def _draw(self, image: np.ndarray, poses: Poses, boxes: np.ndarray, persons=None) -> np.ndarray:
        annotated = self.estimator.annotated
        visible = (poses.scores >= self.kpt_thr) & annotated
        self.scored += len(poses.scores) * int(annotated.sum())
        self.drawn += int(visible.sum())
        return draw_poses(image, poses.keypoints, visible, self.dataset_meta, boxes, persons)

    def _write_sheets(self, folder: Path, name: str, poses: PosesWithHeatmaps) -> None:
        names = [
            self.dataset_meta['keypoint_id2name'][index] for index in range(self.estimator.num_keypoints)
        ]
        for index, (crop, heatmaps) in enumerate(zip(poses.crops, poses.heatmaps)):
            _write_jpeg(folder / f'{name}_person{index}.jpg', heatmap_sheet(crop, heatmaps, names))


@contextlib.contextmanager
def _leaving_out(path: Source, left_out: dict[Source, str]) -> Iterator[None]:
    """Record an input that is at fault itself; an error that concerns all, such as a full disk, goes on."""
    try:
        yield
    except InputError as error:
        if not isinstance(error, ImageError) and getattr(error.__cause__, 'errno', None) not in WRONG_NAME:
            raise
        left_out[path] = str(error) if str(path) in str(error) else f'{path}: {error}'


def predictions_json(estimator: PoseEstimator, poses: Poses, boxes: np.ndarray, scores: np.ndarray) -> str:
    """An image's persons in the format of MMPose's inferencers, for boxes (N, 4) and their scores (N,)."""
    return _json(_instances(estimator, poses, boxes, scores))


def _instances(estimator: PoseEstimator, poses: Poses, boxes: np.ndarray, scores: np.ndarray) -> list:
    """MMPose's dicts of keypoints, keypoint_scores, bbox and bbox_score, one per person."""
    fields = dict(keypoints=poses.keypoints, keypoint_scores=poses.scores)
    persons = split_instances(InstanceData(**fields, bboxes=boxes, bbox_scores=scores))
    if not estimator.annotated.all():
        unannotated = np.flatnonzero(~estimator.annotated).tolist()
        persons = [person | dict(unannotated_keypoints=unannotated) for person in persons]
    return persons


def _json(content) -> str:
    return mmengine.dump(content, file_format='json', indent='  ')


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    with atomic_write(path) as file:
        file.write(cv2.imencode('.jpg', image)[1])
