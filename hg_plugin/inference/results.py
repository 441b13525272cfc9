"""The persons that were found in an image, to be read, drawn, written and shown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL.Image
from mmengine.structures import InstanceData
from mmpose.structures import split_instances

from hg_plugin.utils.checkpoint import KPT_THR
from hg_plugin.utils.errors import need_packages
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.images import as_bgr, read_image
from hg_plugin.visualization import bones, draw_poses

Image = str | PathLike | np.ndarray | PIL.Image.Image


class Person(NamedTuple):
    """Keypoints (K, 2) in 0-based pixels of the image, scores (K,), the box (4,) and its score."""

    keypoints: np.ndarray
    scores: np.ndarray
    box: np.ndarray
    box_score: float


@dataclass(repr=False)
class Poses:
    """N persons of an image.

    ``keypoints, scores = poses`` unpacks it; where it has heatmaps, ``keypoints, scores, heatmaps, crops``.

    Attributes:
        keypoints: (N, K, 2) float32 in 0-based pixels of the image.
        scores: (N, K) float32. Keypoints that the network has not learned have 0.
        boxes: (N, 4) float32, left, top, right and bottom.
        box_scores: (N,) float32; 1 where they are not known.
        image: The path, array or PIL image.
        image_size: Width and height.
        dataset_meta: MMPose's metainfo of the keypoints, {} if there is none.
        heatmaps: (N, S, K, h, w) float32 of all S stacks, or None.
        crops: (N, H, W, 3) uint8 BGR, the network's inputs, of the same area as the heatmaps, or None.
        kpt_thr: Lowest score of a keypoint that is drawn.
        ids: Numbers that name the persons in all frames of a video, or None.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    box_scores: np.ndarray
    image: Image
    image_size: tuple[int, int]
    dataset_meta: dict = field(default_factory=dict)
    heatmaps: np.ndarray | None = None
    crops: np.ndarray | None = None
    kpt_thr: float = KPT_THR
    ids: Sequence[int] | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        fields = (self.keypoints, self.scores, self.heatmaps, self.crops)
        return (array for array in fields if array is not None)

    def __len__(self) -> int:
        return len(self.keypoints)

    def __repr__(self) -> str:
        width, height = self.image_size
        scores = ', '.join(f'{score:.2f}' for score in self.scores[:, self.annotated].mean(axis=1))
        persons = f'{len(self)} person{"s" if len(self) != 1 else ""}'
        return f'Poses({persons} in {width}x{height} pixels{f", mean scores {scores}" if len(self) else ""})'

    @property
    def persons(self) -> list[Person]:
        return [*map(Person, self.keypoints, self.scores, self.boxes, self.box_scores.tolist())]

    @property
    def names(self) -> list[str]:
        """Of the K keypoints; their numbers where there is no metainfo."""
        names = self.dataset_meta.get('keypoint_id2name', {})
        return [names.get(index, str(index)) for index in range(self.keypoints.shape[1])]

    @property
    def annotated(self) -> np.ndarray:
        """(K,) bool: which keypoints the network has learned."""
        return ~np.isin(self.names, self.dataset_meta.get('unannotated_keypoints', []))

    @property
    def skeleton(self) -> list[tuple[int, int]]:
        """The keypoints that a bone joins, by their indices."""
        return [bone[:2] for bone in bones(self.dataset_meta)]

    def draw(self, kpt_thr: float | None = None) -> np.ndarray:
        """Draw skeletons and boxes on a copy of the image: (H, W, 3) uint8 BGR. See :meth:`plot`."""
        source = self.image
        image = read_image(source) if isinstance(source, (str, PathLike)) else as_bgr(source).copy()
        kpt_thr = self.kpt_thr if kpt_thr is None else kpt_thr
        visible = (self.scores >= kpt_thr) & self.annotated
        return draw_poses(image, self.keypoints, visible, self.dataset_meta, self.boxes, self.ids)

    def plot(self, path: str | PathLike | None = None, *, kpt_thr: float | None = None) -> PIL.Image.Image:
        """Draw skeletons and boxes on a copy of the image, which a notebook shows.

        Args:
            path: Also write it there, in the format of its suffix. Defaults to None.
            kpt_thr: Lowest score of a keypoint that is drawn. Defaults to the network's.

        Raises:
            ImageError: The image cannot be read any more.
            InputError: The file cannot be written.
        """
        drawn = PIL.Image.fromarray(np.ascontiguousarray(self.draw(kpt_thr)[..., ::-1]))
        if path is not None:
            kind = PIL.Image.registered_extensions().get(Path(path).suffix.lower(), 'PNG')
            with atomic_write(path) as file:
                drawn.save(file, kind)
        return drawn

    def _repr_png_(self) -> bytes:
        return self.plot()._repr_png_()

    def to_dict(self) -> dict:
        """The same in numbers, lists and text, as ``hg_plugin infer`` writes it to JSON."""
        return dict(
            image=str(self.image) if isinstance(self.image, (str, PathLike)) else None,
            **self.description(),
            persons=self.person_dicts(),
        )

    def description(self) -> dict:
        """What persons have in common: the image's size, and the names and bones of keypoints."""
        return dict(
            image_size=[*self.image_size],
            keypoint_names=self.names,
            unannotated_keypoints=[name for name, known in zip(self.names, self.annotated) if not known],
            skeleton=[[*bone] for bone in self.skeleton],
        )

    def person_dicts(self) -> list[dict]:
        """A dict a person; pixels with 2 decimals, scores with 4."""
        ids = [{}] * len(self) if self.ids is None else [dict(id=number) for number in self.ids]
        return [
            dict(
                **number,
                box=_rounded(person.box, 2),
                box_score=round(person.box_score, 4),
                keypoints=_rounded(person.keypoints, 2),
                keypoint_scores=_rounded(person.scores, 4),
            )
            for number, person in zip(ids, self.persons)
        ]

    def to_mmpose(self) -> list[dict]:
        """MMPose's dicts of ``keypoints``, ``keypoint_scores``, ``bbox`` and ``bbox_score``, one a person."""
        fields = dict(keypoints=self.keypoints, keypoint_scores=self.scores)
        return split_instances(InstanceData(**fields, bboxes=self.boxes, bbox_scores=self.box_scores))

    def to_df(self):
        """A pandas DataFrame, a row for every keypoint that the network has learned.

        Raises:
            InputError: pandas is not installed.
        """
        need_packages('Poses.to_df', 'pandas')
        import pandas

        rows = [
            (person, self.names[index], *points[index].tolist(), scores[index].item())
            for person, (points, scores) in enumerate(zip(self.keypoints, self.scores))
            for index in np.flatnonzero(self.annotated)
        ]
        return pandas.DataFrame(rows, columns=['person', 'keypoint', 'x', 'y', 'score'])


def _rounded(array: np.ndarray, decimals: int) -> list:
    return np.asarray(array, np.float64).round(decimals).tolist()
