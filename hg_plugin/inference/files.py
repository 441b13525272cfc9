"""Estimate poses in image and video files; write MMPose's JSON, drawn skeletons and heatmap sheets."""

import contextlib
import errno
import json
import os
import shutil
import textwrap
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from os import PathLike
from pathlib import Path

import cv2
import mmengine
import numpy as np
from mmengine.structures import InstanceData
from mmpose.structures import split_instances

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write, writing
from hg_plugin.utils.images import ImageError, Video, read_image
from hg_plugin.utils.progress import Progress
from hg_plugin.visualization import draw_skeleton, heatmap_sheet

from .pose_estimator import PoseEstimator, Poses, PosesWithHeatmaps, check_boxes

# looked for in folders; a file that is named itself may be any image that OpenCV can decode
IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.pbm', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp')
# not by way of mimetypes, which differs from one machine to the next
VIDEO_SUFFIXES = tuple('.3gp .avi .flv .m4v .mkv .mov .mp4 .mpeg .mpg .ts .webm .wmv'.split())
# of a detected person that counts
MIN_SCORE = 0.3
# why a file of one name cannot be written where another may be
WRONG_NAME = errno.ENAMETOOLONG, errno.EISDIR, errno.EILSEQ, errno.EINVAL


def infer_files(
    config: str | PathLike | None,
    checkpoint: str | PathLike | None,
    inputs: str | PathLike | Sequence[str | PathLike],
    *,
    out_dir: str | PathLike = 'outputs',
    boxes: str | PathLike | Mapping[str, Sequence] | Sequence[Sequence[float]] | None = None,
    draw: bool = True,
    heatmaps: bool = False,
    kpt_thr: float = 0.3,
    flip_test: bool = False,
    scales: Sequence[float] = (1.0,),
    batch_size: int = 16,
    device: str | None = None,
) -> dict[Path, str]:
    """Find the keypoints of persons in images and videos, and write them to files, each whole or not at all.

    ``predictions/NAME.json`` has the format of MMPose's inferencers, a video's with all its frames. Skeletons
    are drawn in ``visualizations/NAME.jpg`` or, for a video, ``.mp4``. Heatmap sheets (see
    :func:`hg_plugin.visualization.heatmap_sheet`) are in ``heatmaps/NAME_person0.jpg`` or, for a video,
    ``heatmaps/NAME/frame000000_person0.jpg``. For NAME see :func:`output_names`. Progress goes to stderr. At
    most a batch of images is in memory.

    Args:
        config, checkpoint, batch_size, device: See :class:`PoseEstimator`.
        inputs: Images, folders of images and videos.
        out_dir: The folder for the results. Defaults to 'outputs'.
        boxes: Boxes of persons in pixels: ``[[left, top, right, bottom], ...]`` for every input;
            ``{'a.jpg': [[left, top, right, bottom], ...]}``, where a key is a path as in ``inputs`` or its
            last part; or a JSON file of such a dict or of COCO's detections ``[{image_id or file_name, bbox
            [x, y, width, height], score, category_id}, ...]``, of which persons with a score of 0.3 or more
            count. The boxes of a video apply to all frames. A file without boxes has one person, as large as
            the image. Defaults to None.
        draw: Draw skeletons. Defaults to True.
        heatmaps: Draw heatmap sheets, one per person. Defaults to False.
        kpt_thr: Lowest score of a keypoint that is drawn. Defaults to 0.3.
        flip_test, scales: See :meth:`PoseEstimator.__call__`.

    Returns:
        The inputs that were left out, with the reason: they cannot be read, their boxes are wrong, or their
        results cannot have such a name.

    Raises:
        InputError: If an input does not exist or could be overwritten, there are no boxes of any input, the
            results cannot be written, or :class:`PoseEstimator` raises it.
    """
    inputs = find_inputs(inputs)
    boxes = read_boxes(boxes, inputs) if boxes else {}
    out_dir = Path(out_dir)
    folders = {(out_dir / name).resolve() for name in ('predictions', 'visualizations', 'heatmaps')}
    for path in inputs:
        if folders & {*path.resolve().parents}:
            raise InputError(
                f'{path} is in a folder of the results, which could overwrite it; '
                f'choose another output folder than {out_dir}.'
            )
    estimator = PoseEstimator(config, checkpoint, device, batch_size)
    options = dict(flip_test=flip_test, scales=scales, heatmaps=heatmaps)
    results = _Results(estimator, options, out_dir, draw, kpt_thr)
    names, left_out = output_names(inputs), {}
    videos = [path for path in inputs if path.suffix.lower() in VIDEO_SUFFIXES]
    images = [path for path in inputs if path not in videos]
    if images:
        results.write_images(images, names, boxes, left_out)
    for path in videos:
        with _leaving_out(path, left_out):
            results.write_video(path, names[path], boxes.get(path))
    return left_out


class _Results:
    """Estimate poses, and write them as :func:`infer_files` says."""

    def __init__(self, estimator: PoseEstimator, options: dict, out_dir: Path, draw: bool, kpt_thr: float):
        self.estimator, self.options, self.out_dir = estimator, options, out_dir
        self.draw, self.heatmaps, self.kpt_thr = draw, options['heatmaps'], kpt_thr
        self.dataset_meta = estimator.dataset_meta if draw or self.heatmaps else None

    def write_images(
        self,
        paths: list[Path],
        names: dict[Path, str],
        boxes: dict[Path, Sequence],
        left_out: dict[Path, str],
    ) -> None:
        def read():
            for path in paths:
                with _leaving_out(path, left_out):
                    image = read_image(path)
                    persons = check_boxes(boxes.get(path), image)
                if path in left_out:
                    progress.update()
                else:
                    yield path, image, persons

        with Progress(len(paths), 'images') as progress:
            for path, image, persons, poses in self._estimate(read()):
                name = names[path]
                with _leaving_out(path, left_out):
                    if self.heatmaps:
                        self._write_sheets(self.out_dir / 'heatmaps', name, poses)
                    if self.draw:
                        drawn = self._draw(image, poses)
                        _write_jpeg(self.out_dir / 'visualizations' / f'{name}.jpg', drawn)
                    with atomic_write(self.out_dir / 'predictions' / f'{name}.json') as file:
                        file.write(predictions_json(poses, persons).encode())
                progress.update()

    def write_video(self, path: Path, name: str, boxes: Sequence | None) -> None:
        video = Video(path)
        frames = ((index, frame, check_boxes(boxes, frame)) for index, frame in enumerate(video))
        with contextlib.ExitStack() as files:
            file = files.enter_context(atomic_write(self.out_dir / 'predictions' / f'{name}.json'))
            if self.draw:
                drawn = self.out_dir / 'visualizations' / f'{name}.mp4'
                writer = files.enter_context(_open_video(drawn, video))
            if self.heatmaps:
                sheets = files.enter_context(_replacing(self.out_dir / 'heatmaps' / name, is_folder=True))
            progress = files.enter_context(Progress(video.num_frames, f'frames of {path.name}'))
            for index, frame, persons, poses in self._estimate(frames):
                if self.heatmaps:
                    self._write_sheets(sheets, f'frame{index:06d}', poses)
                if self.draw:
                    writer.write(self._draw(frame, poses))
                # item by item, in the layout of the whole list
                item = _json(dict(frame_id=index, instances=_instances(poses, persons)))
                file.write(f'{"," if index else "["}\n{textwrap.indent(item, "  ")}'.encode())
                progress.update()
            file.write(b'\n]')

    def _estimate(self, items: Iterable[tuple]) -> Iterator[tuple]:
        """Yield (key, image, boxes, poses) for every (key, image, boxes)."""
        waiting = deque()

        def images():
            for item in items:
                waiting.append(item)
                yield item[1:]

        for poses in self.estimator.stream(images(), **self.options):
            yield *waiting.popleft(), poses

    def _draw(self, image: np.ndarray, poses: Poses) -> np.ndarray:
        for keypoints, scores in zip(poses.keypoints, poses.scores):
            draw_skeleton(image, keypoints, scores >= self.kpt_thr, self.dataset_meta)
        return image

    def _write_sheets(self, folder: Path, name: str, poses: PosesWithHeatmaps) -> None:
        names = [
            self.dataset_meta['keypoint_id2name'][index] for index in range(self.estimator.num_keypoints)
        ]
        for index, (crop, heatmaps) in enumerate(zip(poses.crops, poses.heatmaps)):
            _write_jpeg(folder / f'{name}_person{index}.jpg', heatmap_sheet(crop, heatmaps, names))


def find_inputs(inputs: str | PathLike | Sequence[str | PathLike]) -> list[Path]:
    """Return the files that ``inputs`` name: themselves, or the images of a folder, sorted; none comes twice.

    Raises:
        InputError: If one does not exist, or is a folder without images.
    """
    found = {}
    for path in map(Path, [inputs] if isinstance(inputs, (str, PathLike)) else inputs):
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        else:
            files = [path] if path.exists() else []
        if not files:
            problem = 'is a folder without images' if path.is_dir() else 'does not exist'
            raise InputError(f'{path} {problem}; give images, folders of images or videos.')
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def read_boxes(
    boxes: str | PathLike | Mapping[str, Sequence] | Sequence[Sequence[float]], inputs: Sequence[Path]
) -> dict[Path, Sequence]:
    """Find the boxes of the inputs, see :func:`infer_files`; :func:`check_boxes` checks them.

    Raises:
        InputError: If the file cannot be read, or names none of the inputs.
    """
    source, example = 'The boxes', '{"a.jpg": [[left, top, right, bottom]]}'
    if isinstance(boxes, Sequence) and not isinstance(boxes, str):
        return dict.fromkeys(inputs, boxes)
    if not isinstance(boxes, Mapping):
        source = f'The boxes {boxes}'
        try:
            boxes = json.loads(Path(boxes).read_text())
        except (OSError, ValueError) as error:
            raise InputError(f'{source} cannot be read: {error}; give JSON, such as {example}.') from error
    found, by_name = {}, _boxes_of_detections(boxes, inputs) if isinstance(boxes, list) else boxes
    if isinstance(by_name, Mapping):
        found = {path: by_name[name] for path in inputs for name in (path.name, str(path)) if name in by_name}
    if not found:
        start = textwrap.shorten(str(boxes), 60)
        raise InputError(f'{source} are of none of the inputs: {start}; give boxes such as {example}.')
    return found


def _boxes_of_detections(detections: list, inputs: Sequence[Path]) -> dict[str, list]:
    """COCO's detections of persons, by the input's path. An ``image_id`` is a number in its name."""
    names: dict[str | int, Path] = {}
    for path in inputs:
        names |= {path.name: path, path.stem: path, str(path): path}
        if path.stem.isdecimal():
            names[int(path.stem)] = path
    boxes = {}
    for detection in detections:
        if isinstance(detection, dict) and len(detection.get('bbox', ())) == 4:
            path = names.get(detection.get('file_name', detection.get('image_id')))
            if path and detection.get('score', 1) >= MIN_SCORE and detection.get('category_id', 1) == 1:
                x, y, width, height = detection['bbox']
                boxes.setdefault(str(path), []).append([x, y, x + width, y + height])
    return boxes


def output_names(inputs: Sequence[Path]) -> dict[Path, str]:
    """Name the results of each input: its name without extension, as in MMPose.

    Where that is taken, the folder's name goes before it; where that is taken too, a number behind it.
    """
    names, taken = {}, set()
    for path in inputs:
        first = path.stem, f'{path.absolute().parent.name}_{path.stem}'
        candidates = chain(first, (f'{path.stem}_{number}' for number in count(2)))
        names[path] = next(name for name in candidates if name not in taken)
        taken.add(names[path])
    return names


@contextlib.contextmanager
def _leaving_out(path: Path, left_out: dict[Path, str]) -> Iterator[None]:
    """Record an input that is at fault itself; an error that concerns all, such as a full disk, goes on."""
    try:
        yield
    except InputError as error:
        if not isinstance(error, ImageError) and getattr(error.__cause__, 'errno', None) not in WRONG_NAME:
            raise
        left_out[path] = str(error) if str(path) in str(error) else f'{path}: {error}'


def predictions_json(poses: Poses, boxes: np.ndarray) -> str:
    """The persons of an image in the format of MMPose's inferencers."""
    return _json(_instances(poses, boxes))


def _instances(poses: Poses, boxes: np.ndarray) -> list:
    """MMPose's dicts of keypoints, keypoint_scores, bbox and bbox_score, one per person."""
    fields = dict(bboxes=boxes, bbox_scores=np.ones(len(boxes), np.float32))
    return split_instances(InstanceData(keypoints=poses.keypoints, keypoint_scores=poses.scores, **fields))


def _json(content) -> str:
    return mmengine.dump(content, file_format='json', indent='  ')


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    with atomic_write(path) as file:
        file.write(cv2.imencode('.jpg', image)[1])


@contextlib.contextmanager
def _open_video(path: Path, like: Video) -> Iterator[cv2.VideoWriter]:
    """Open a video of the same size and rate that replaces ``path`` when the block ends without an error."""
    with _replacing(path) as partial:
        fourcc = cv2.VideoWriter.fourcc(*'mp4v')
        writer = cv2.VideoWriter(str(partial), fourcc, like.fps, like.size)
        if not writer.isOpened():
            raise ImageError(f'{path} cannot be written: OpenCV cannot make this video; draw no skeletons.')
        try:
            yield writer
        finally:
            writer.release()
        if not cv2.VideoCapture(str(partial)).read()[0]:  # OpenCV reports no error
            raise InputError(f'{path} cannot be written completely; make room on the disk.')


@contextlib.contextmanager
def _replacing(path: Path, is_folder: bool = False) -> Iterator[Path]:
    """Give a path for a file or folder that replaces ``path`` when the block ends without an error."""
    partial = path.with_name(f'{path.stem}.partial{path.suffix}')  # OpenCV needs the suffix
    try:
        with writing(path):
            (partial if is_folder else path.parent).mkdir(parents=True, exist_ok=True)
        yield partial
        with writing(path):
            if is_folder:
                shutil.rmtree(path, ignore_errors=True)
            os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.suppress(OSError):  # it is gone after success
            partial.unlink()
