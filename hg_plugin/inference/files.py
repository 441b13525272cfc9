"""Pose estimation from files to files: pictures and videos in; MMPose's JSON, skeletons and heatmap sheets out."""

import contextlib
import errno
import os
import shutil
import textwrap
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import mmengine
import numpy as np
from mmengine.structures import InstanceData
from mmpose.structures import split_instances

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.images import PictureError, Video, read_picture
from hg_plugin.utils.progress import Progress
from hg_plugin.visualization import draw_skeleton, heatmap_sheet

from .inputs import VIDEO_SUFFIXES, output_names
from .pose_estimator import PoseEstimator, Poses, PosesWithHeatmaps, check_boxes


class InferenceFiles:
    """Finds persons' keypoints in files and writes files, each whole or not at all.

    ``predictions/NAME.json`` is in the format of MMPose's inferencers; a video's has all its frames. Drawn skeletons
    are in ``visualizations/NAME.jpg``, or ``.mp4`` for a video. Heatmap sheets, one a person, are in
    ``heatmaps/NAME_person0.jpg``, a video's in ``heatmaps/NAME/frame000000_person0.jpg``; see
    :func:`hg_plugin.visualization.heatmap_sheet`.

    Args:
        estimator: Finds the keypoints.
        out_dir: The folder of the three above.
        draw: Draw skeletons. Defaults to True.
        heatmaps: Draw heatmap sheets. Defaults to False.
        kpt_thr: Lowest score of a keypoint that is drawn. Defaults to 0.3.
        flip_test, scales: As for :class:`PoseEstimator`.

    Raises:
        InputError: where something is to be drawn, and the keypoints' names and skeleton are not known.
    """

    def __init__(
        self,
        estimator: PoseEstimator,
        out_dir: str,
        *,
        draw: bool = True,
        heatmaps: bool = False,
        kpt_thr: float = 0.3,
        flip_test: bool = False,
        scales: Sequence[float] = (1.0,),
    ):
        if not str(out_dir):
            raise InputError('The name of the output folder is empty; give one, such as outputs.')
        if np.isnan(kpt_thr):
            raise InputError('kpt_thr is nan; give a number, such as 0.3.')
        self.estimator = estimator
        self.out_dir = Path(out_dir)
        self.draw = draw
        self.heatmaps = heatmaps
        self.kpt_thr = kpt_thr
        self.options = dict(flip_test=flip_test, scales=scales, heatmaps=heatmaps)
        self.dataset_meta = estimator.dataset_meta if draw or heatmaps else None

    def run(self, inputs: Sequence[Path], boxes: dict[Path, list] | None = None) -> dict[Path, str]:
        """Goes through all inputs, showing progress. Never are there more than a batch of pictures in memory.

        Args:
            inputs: Pictures and videos, see :func:`find_inputs`. A file whose name is a video's is read as one.
            boxes: The persons' boxes in some of them, see :func:`read_boxes`; a video's are for all frames. Others have
                one person each, as large as the picture. Defaults to None.

        Returns:
            Inputs that were left out because they cannot be read, their boxes are wrong or their results cannot have such a
            name or size, and a sentence why.

        Raises:
            InputError: where nothing can be written, and for an input in a folder of the results, which could be overwritten.
        """
        folders = [(self.out_dir / name).resolve() for name in ('predictions', 'visualizations', 'heatmaps')]
        for path in inputs:
            if not {*path.resolve().parents}.isdisjoint(folders):
                raise InputError(
                    f'{path} is in a folder of the results, which might take its place; choose another output folder '
                    f'than {self.out_dir}.'
                )
        boxes = boxes or {}
        names = output_names(inputs)
        videos = [path for path in inputs if path.suffix.lower() in VIDEO_SUFFIXES]
        pictures = [path for path in inputs if path not in videos]
        left_out = {}
        if pictures:
            with Progress(len(pictures), 'pictures') as progress:
                self._run_pictures({path: names[path] for path in pictures}, boxes, left_out, progress)
        for path in videos:
            with _leaving_out(path, left_out):
                self._run_video(path, names[path], boxes.get(path))
        return left_out

    def _run_pictures(
        self, names: dict[Path, str], boxes: dict[Path, list], left_out: dict[Path, str], progress: Progress
    ) -> None:
        waiting = deque()

        def readable():
            for path, name in names.items():
                with _leaving_out(path, left_out):
                    image = read_picture(path)
                    persons = check_boxes(boxes.get(path), image)
                if path in left_out:
                    progress.update()
                    continue
                waiting.append((path, image, persons))
                yield image, persons

        for poses in self.estimator.stream(readable(), **self.options):
            path, image, persons = waiting.popleft()
            with _leaving_out(path, left_out):
                self._write_results(names[path], image, persons, poses)
            progress.update()

    def _write_results(self, name: str, image: np.ndarray, persons: np.ndarray, poses: Poses) -> None:
        if self.heatmaps:
            self._write_sheets(self.out_dir / 'heatmaps', name, poses)
        if self.draw:
            _write_jpeg(self.out_dir / 'visualizations' / f'{name}.jpg', self._draw(image, poses))
        with atomic_write(self.out_dir / 'predictions' / f'{name}.json') as file:
            file.write(_json(_instances(poses, persons)).encode())

    def _run_video(self, path: Path, name: str, boxes: list | None) -> None:
        video = Video(path)
        waiting = deque()

        def frames():
            for frame in video:
                persons = check_boxes(boxes, frame)
                waiting.append((frame, persons))
                yield frame, persons

        with contextlib.ExitStack() as files:
            file = files.enter_context(atomic_write(self.out_dir / 'predictions' / f'{name}.json'))
            if self.draw:
                writer = files.enter_context(
                    _replacing_video(self.out_dir / 'visualizations' / f'{name}.mp4', video)
                )
            if self.heatmaps:
                sheets = files.enter_context(_replacing_folder(self.out_dir / 'heatmaps' / name))
            progress = files.enter_context(Progress(video.num_frames, f'frames of {path.name}'))
            for index, poses in enumerate(self.estimator.stream(frames(), **self.options)):
                frame, persons = waiting.popleft()
                if self.heatmaps:
                    self._write_sheets(sheets, f'frame{index:06d}', poses)
                if self.draw:
                    writer.write(self._draw(frame, poses))
                # a list's items one by one, laid out as if all were written at once
                item = _json(dict(frame_id=index, instances=_instances(poses, persons)))
                file.write(f'{"," if index else "["}\n{textwrap.indent(item, "  ")}'.encode())
                progress.update()
            file.write(b'\n]')

    def _draw(self, image: np.ndarray, poses: Poses) -> np.ndarray:
        for keypoints, scores in zip(poses.keypoints, poses.scores):
            draw_skeleton(image, keypoints, scores >= self.kpt_thr, self.dataset_meta)
        return image

    def _write_sheets(self, folder: Path, name: str, poses: PosesWithHeatmaps) -> None:
        keypoints = [
            self.dataset_meta['keypoint_id2name'][index] for index in range(self.estimator.num_keypoints)
        ]
        for index, (crop, heatmaps) in enumerate(zip(poses.crops, poses.heatmaps)):
            _write_jpeg(folder / f'{name}_person{index}.jpg', heatmap_sheet(crop, heatmaps, keypoints))


# why a file of one name cannot be written, where one of another name may be
WRONG_NAME = errno.ENAMETOOLONG, errno.EISDIR, errno.EILSEQ, errno.EINVAL


@contextlib.contextmanager
def _leaving_out(path: Path, left_out: dict[Path, str]) -> Iterator[None]:
    """Notes that an input is left out where it is at fault itself; an InputError of all, such as a full disk, goes on."""
    try:
        yield
    except InputError as error:
        if not isinstance(error, PictureError) and getattr(error.__cause__, 'errno', None) not in WRONG_NAME:
            raise
        left_out[path] = str(error) if str(path) in str(error) else f'{path}: {error}'


def _instances(poses: Poses, boxes: np.ndarray) -> list:
    """MMPose's dicts of keypoints, keypoint_scores, bbox and bbox_score, one a person."""
    scores = np.ones(len(boxes), np.float32)
    return split_instances(
        InstanceData(
            keypoints=poses.keypoints, keypoint_scores=poses.scores, bboxes=boxes, bbox_scores=scores
        )
    )


def _json(content) -> str:
    return mmengine.dump(content, file_format='json', indent='  ')


def _write_jpeg(path: Path, image: np.ndarray) -> None:
    try:
        data = cv2.imencode('.jpg', image)[1]
    except cv2.error as error:  # more than 65,500 pixels wide or high
        raise PictureError(
            f'{path} cannot be written: {image.shape[1]}x{image.shape[0]} pixels are too many for a JPEG; '
            'leave out drawings.'
        ) from error
    with atomic_write(path) as file:
        file.write(data)


@contextlib.contextmanager
def _replacing_video(path: Path, like: Video) -> Iterator[cv2.VideoWriter]:
    """A video to write to, which takes the place of ``path`` when the ``with`` block ends without an error."""
    partial = path.with_name(f'{path.stem}.partial.mp4')  # the ending is the format
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = cv2.VideoWriter(str(partial), cv2.VideoWriter_fourcc(*'mp4v'), like.fps, like.size)
        if not writer.isOpened():
            raise PictureError(
                f'{path} cannot be written: OpenCV cannot make a video of it; leave out drawings.'
            )
        try:
            yield writer
        finally:
            writer.release()
        if not cv2.VideoCapture(str(partial)).read()[0]:  # OpenCV does not say so
            raise InputError(
                f'{path} cannot be written: it cannot be read again, as where a disk is full; make room.'
            )
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f'{path} cannot be written: {error.strerror or error}.') from error
    finally:
        with contextlib.suppress(OSError):  # there is none after success
            partial.unlink()


@contextlib.contextmanager
def _replacing_folder(path: Path) -> Iterator[Path]:
    """A folder to write to, which takes the place of ``path`` when the ``with`` block ends without an error."""
    partial = path.with_name(f'{path.name}.partial')
    try:
        partial.mkdir(parents=True, exist_ok=True)
        yield partial
        shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)
    except OSError as error:
        raise InputError(f'{path} cannot be written: {error.strerror or error}.') from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
