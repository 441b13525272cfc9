"""Estimate poses in image and video files; write JSON, drawn skeletons and heatmap sheets."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path

import cv2
import numpy as np

from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.images import ImageError, Video, read_image
from hg_plugin.utils.progress import Progress
from hg_plugin.visualization import heatmap_sheet

from .boxes import Boxes, check_boxes, read_boxes
from .detectors import Detector, boxes_inside
from .find import Follower
from .inputs import Source, address_of, find_inputs, is_video, output_names
from .pose_estimator import PoseEstimator
from .results import Poses
from .screen import Window
from .smoothing import PersonIds, Smoother
from .video import ctrl_c_is_noted, open_video


def infer_files(
    config: str | PathLike | None,
    checkpoint: str | PathLike | None,
    inputs: str | PathLike | Sequence[str | PathLike],
    *,
    out_dir: str | PathLike = 'outputs',
    boxes: str | PathLike | Mapping[str, Sequence] | Sequence[Sequence[float]] | None = None,
    detector: Detector | None = None,
    whole_image: bool = False,
    draw: bool = True,
    show: bool = False,
    heatmaps: bool = False,
    smooth: bool = False,
    mmpose_json: bool = False,
    kpt_thr: float | None = None,
    flip_test: bool = False,
    scales: Sequence[float] = (1.0,),
    batch_size: int = 16,
    device: str | None = None,
    cfg_options: dict | None = None,
) -> dict[Source, str]:
    """Find the keypoints of persons in images and videos, and write them to files, each whole or not at all.

    ``predictions/NAME.json`` is an object: ``image`` or ``video``, the path; ``image_size``;
    ``keypoint_names``; ``unannotated_keypoints``, which the network has not learned, with scores 0;
    ``skeleton``; and ``persons``, each with ``box``, ``box_score``, ``keypoints`` and ``keypoint_scores``.
    A video has ``frames`` of ``{frame_id, persons}``, where ``id`` tells which person of the frames before
    this is. Skeletons are drawn in ``visualizations/NAME.jpg`` or, for a video, ``.webm`` or ``.mp4``,
    see ``FORMATS`` in :mod:`hg_plugin.inference.video`. Heatmap sheets (see
    :func:`hg_plugin.visualization.heatmap_sheet`) are in ``heatmaps/NAME_person0.jpg`` or, for a video,
    ``heatmaps/NAME/frame000000_person0.jpg``. For NAME see :func:`output_names`. Progress goes to stderr. At
    most a batch of images is in memory. Ctrl-C ends a camera or stream; what was found until then is kept.

    Args:
        config, checkpoint, batch_size, device, cfg_options: See :class:`PoseEstimator`. Or ``config`` is one,
            and the others are not used. Of one that is made here, ``bfloat16`` is True.
        inputs: Images, videos, folders of both, cameras such as '0', and addresses of streams, see
            :func:`find_inputs`.
        out_dir: The folder for the results. Defaults to 'outputs'.
        boxes: Boxes of persons in pixels, or a JSON file of them, for all inputs, by input or by frame, see
            :func:`read_boxes`. Where there are none, the detector finds them, or the pose network itself,
            see :mod:`hg_plugin.inference.find`. Defaults to None.
        detector: A function from an image to boxes and scores (N, 5), see
            :mod:`hg_plugin.inference.detectors`. Defaults to None.
        whole_image: Where there are no boxes, take the whole image as one person. Defaults to False.
        draw: Draw skeletons. Defaults to True.
        show: Show what is drawn in a window. Q or Esc ends a video. Defaults to False.
        heatmaps: Draw heatmap sheets, one per person. Defaults to False.
        smooth: Smooth keypoints over the frames of a video, see :class:`Smoother`. Defaults to False.
        mmpose_json: Write ``predictions`` in the format of MMPose's inferencers. Defaults to False.
        kpt_thr: Lowest score of a keypoint that is drawn. Defaults to the network's, see
            :attr:`PoseEstimator.kpt_thr`.
        flip_test, scales: See :meth:`PoseEstimator.__call__`.

    Returns:
        The inputs that were left out, with the reason: they cannot be read, or their boxes are wrong.

    Raises:
        InputError: If an input does not exist or could be overwritten, there are no boxes of any input, the
            results cannot be written, there is no screen to show them, or :class:`PoseEstimator` raises it.
    """
    inputs = find_inputs(inputs, out_dir)
    given = read_boxes(boxes, inputs) if boxes is not None else {}
    window = Window('hg_plugin') if show else None
    if isinstance(config, PoseEstimator):
        estimator = config
    else:
        estimator = PoseEstimator(config, checkpoint, device, batch_size, cfg_options, bfloat16=True)
    if draw or show or heatmaps:
        estimator.dataset_meta  # noqa: B018, so that a missing skeleton is told before the first image
    results = _Results(
        estimator=estimator,
        options=dict(whole_image=whole_image, flip_test=flip_test, scales=scales, heatmaps=heatmaps),
        out_dir=Path(out_dir),
        boxes=given,
        detector=detector,
        draw=draw,
        kpt_thr=estimator.kpt_thr if kpt_thr is None else kpt_thr,
        smooth=smooth,
        mmpose_json=mmpose_json,
        window=window,
    )
    names, left_out = output_names(inputs, out_dir), {}
    videos = [source for source in inputs if is_video(source)]
    images = [source for source in inputs if not is_video(source)]
    if images:
        results.write_images(images, names, left_out)
    for source in videos:
        with _leaving_out(source, left_out):
            results.write_video(source, names[source])
    if results.empty:
        print(
            f'No person was found in {results.empty} images or frames; give boxes (--boxes, --box), a '
            'detector (--det-onnx), or --whole-image.',
            file=sys.stderr,
        )
    scores = np.concatenate([*results.scores, []])
    drawn = int((scores >= results.kpt_thr).sum())
    if 2 * drawn < len(scores):
        print(
            f'{drawn} of {len(scores)} keypoints reach {results.kpt_thr:.2g}; the highest has '
            f'{scores.max():.2f}; try --kpt-thr {np.floor(100 * np.median(scores)) / 100:g}, or give boxes '
            '(--boxes, --det-onnx).',
            file=sys.stderr,
        )
    return left_out


@dataclass
class _Results:
    """Estimate poses, and write them as :func:`infer_files` says.

    Attributes:
        scores: Of the keypoints that might have been drawn.
        empty: Number of images and frames in which no person was found.
    """

    estimator: PoseEstimator
    options: dict
    out_dir: Path
    boxes: dict[Source, Boxes]
    detector: Detector | None
    draw: bool
    kpt_thr: float
    smooth: bool
    mmpose_json: bool
    window: Window | None
    empty: int = 0
    scores: list[np.ndarray] = field(default_factory=list)

    def write_images(
        self, paths: list[Source], names: dict[Source, str], left_out: dict[Source, str]
    ) -> None:
        readable: list[Source] = []

        def read():
            for path in paths:
                with _leaving_out(path, left_out):
                    image = read_image(path)
                    boxes = self._boxes(path, image)
                    readable.append(path)
                    yield image, boxes
                progress.update()

        with Progress(len(paths), 'images') as progress:
            for index, poses in enumerate(self.estimator.stream(read(), **self.options)):
                path = readable[index]
                if not len(poses) and path not in self.boxes:
                    print(f'{path}: no person found', file=sys.stderr)
                with _leaving_out(path, left_out):
                    drawn = self._draw(path, poses, self.out_dir / 'heatmaps', names[path])
                    if self.draw:
                        _write_jpeg(self.out_dir / 'visualizations' / f'{names[path]}.jpg', drawn)
                    with atomic_write(self.out_dir / 'predictions' / f'{names[path]}.json') as file:
                        if self.mmpose_json:
                            text = json.dumps(poses.to_mmpose(), default=float)
                        else:
                            text = predictions_json(address_of(path), poses)
                        file.write(text.encode())
                    if self.window and not self.window.show(drawn):
                        self.window = None

    def write_video(self, source: Source, name: str) -> None:
        video = Video(source)
        persons, find, empty = PersonIds(), Follower(self.estimator), self.empty
        smoother = Smoother(video.fps) if self.smooth else None

        def read():
            for index, frame in enumerate(video):
                boxes = self._boxes(source, frame, index)
                yield frame, find(frame) if boxes is None and not self.options['whole_image'] else boxes

        with contextlib.ExitStack() as files:
            file = files.enter_context(atomic_write(self.out_dir / 'predictions' / f'{name}.json'))
            if self.draw:
                write = files.enter_context(open_video(self.out_dir / 'visualizations' / name, video))
            progress = files.enter_context(
                Progress(video.num_frames, f'frames of {getattr(source, "name", name)}')
            )
            stopped = files.enter_context(ctrl_c_is_noted()) if video.is_live else []
            if video.is_live:  # a frame is not kept waiting for a batch
                found = (next(self.estimator.stream([item], **self.options)) for item in read())
            else:
                found = self.estimator.stream(read(), **self.options)
            for index, poses in enumerate(found):
                poses = replace(poses, ids=persons(poses.boxes))
                if smoother:
                    poses = replace(poses, keypoints=smoother(poses.ids, poses.boxes, poses.keypoints))
                drawn = self._draw(source, poses, self.out_dir / 'heatmaps' / name, f'frame{index:06d}')
                if self.draw:
                    write(drawn)
                if self.mmpose_json:
                    item = dict(frame_id=index, instances=poses.to_mmpose())
                else:
                    item = dict(frame_id=index, persons=poses.person_dicts())
                if index:
                    start = ','
                elif self.mmpose_json:
                    start = '['
                else:
                    start = _start_of_json(poses, 'frames', video=address_of(source), fps=video.fps)
                # frame by frame, because a camera has no end
                file.write(f'{start}\n{json.dumps(item, default=float)}'.encode())
                progress.update()
                if (self.window and not self.window.show(drawn, 1)) or stopped:
                    break
            file.write(b'\n]' if self.mmpose_json else b'\n]}\n')
        if self.empty > empty:
            print(f'{source}: no person found in {self.empty - empty} of {index + 1} frames', file=sys.stderr)

    def _boxes(self, source: Source, image: np.ndarray, frame: int = 0) -> np.ndarray | None:
        """Boxes and scores (N, 5) of an image or frame; None if there are none and no detector.

        A frame that is not among several has no persons.
        """
        boxes = self.boxes.get(source)
        if isinstance(boxes, Mapping):
            boxes = boxes.get(frame, [])
        if boxes is None and self.detector:
            boxes = boxes_inside(self.detector, image)
        checked = np.column_stack(check_boxes(boxes, image))  # and the size of the image
        return None if boxes is None else checked

    def _draw(self, source: Source, poses: Poses, sheets: Path, name: str) -> np.ndarray | None:
        """Draw what is asked for. Returns (H, W, 3) BGR, or None if nobody wants to see it."""
        self.empty += not len(poses) and source not in self.boxes
        if self.options['heatmaps']:
            for index, (crop, heatmaps) in enumerate(zip(poses.crops, poses.heatmaps)):
                _write_jpeg(sheets / f'{name}_person{index}.jpg', heatmap_sheet(crop, heatmaps, poses.names))
        if not (self.draw or self.window):
            return None
        self.scores.append(poses.scores[:, poses.annotated].ravel())
        return poses.draw(self.kpt_thr)


@contextlib.contextmanager
def _leaving_out(path: Source, left_out: dict[Source, str]) -> Iterator[None]:
    """Record an input that cannot be used; an error that concerns all, such as a full disk, goes on."""
    try:
        yield
    except ImageError as error:
        left_out[path] = str(error) if str(path) in str(error) else f'{path}: {error}'


def predictions_json(image: str, poses: Poses) -> str:
    """An image's persons, see :func:`infer_files`, a line each."""
    persons = ',\n'.join(map(json.dumps, poses.person_dicts()))
    return f'{_start_of_json(poses, "persons", image=image)}\n{persons}\n]}}\n'


def _start_of_json(poses: Poses, items: str, **source) -> str:
    """An object up to the list of persons or frames, which is its last value."""
    return f'{json.dumps(source | poses.description())[:-1]}, "{items}": ['


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    with atomic_write(path) as file:
        file.write(cv2.imencode('.jpg', image)[1])
