"""What the predictions of a validation tell: which persons, joints and sizes are hard."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hg_plugin.evaluation import pckh_curves
from hg_plugin.mpii_format import JOINT_GROUPS, JOINTS, NUM_JOINTS, SCORED_JOINTS
from hg_plugin.utils.array_files import read_file

NAMES = dict(
    zip(('ank', 'kne', 'hip', 'wri', 'elb', 'sho'), ('ankle', 'knee', 'hip', 'wrist', 'elbow', 'shoulder'))
)
# type and shape of a person's values
COLUMNS = dict(
    keypoints=(float, NUM_JOINTS, 2),
    truth=(float, NUM_JOINTS, 2),
    annotated=(bool, NUM_JOINTS),
    images=(str,),
    ids=(int,),
    head_size=(float,),
    boxes=(float, 4),
    centers=(float, 2),
    scales=(float, 2),
)
# within this share of the head size a joint is found
FOUND = 0.5
# where the place of a prediction falls, in the order of precedence
PLACES = ('right place', 'other side', 'another joint', 'elsewhere')


@dataclass
class Persons:
    """N persons of a validation, S stages and 16 joints, in 0-based pixels of the images.

    Attributes:
        images: N paths.
        keypoints: (N, S, 16, 2).
        truth: (N, 16, 2).
        annotated: (N, 16) bool.
        head_size: (N,).
        boxes: (N, 4), left, top, right, bottom.
        centers, scales: (N, 2), of the network's inputs.
        ids: (N,), rows of the annotation file.
        run: The start of the training that wrote them.
    """

    images: np.ndarray
    keypoints: np.ndarray
    truth: np.ndarray
    annotated: np.ndarray
    head_size: np.ndarray
    boxes: np.ndarray
    centers: np.ndarray
    scales: np.ndarray
    ids: np.ndarray
    run: str

    def errors(self, stage: int = -1) -> np.ndarray:
        """(N, 16) distances to the truth in head sizes; NaN where a joint is not annotated or not scored."""
        distance = np.linalg.norm(self.keypoints[:, stage] - self.truth, axis=2) / self.head_size[:, None]
        scored = np.isin(np.arange(NUM_JOINTS), SCORED_JOINTS)
        return np.where(self.annotated & scored, distance, np.nan)

    def curves(self, weights: str, stage: int = -1) -> dict[str, np.ndarray]:
        """PCKh over the threshold, see :func:`hg_plugin.evaluation.pckh_curves`."""
        return pckh_curves(
            self.keypoints[:, stage], self.truth, self.annotated, self.head_size, weights=weights
        )

    def ranking(self) -> np.ndarray:
        """Persons from the smallest to the largest mean error, of those with half of the joints or more."""
        errors = self.errors()
        counts = np.isfinite(errors).sum(axis=1)
        able = np.flatnonzero(counts * 2 >= max(counts.max(initial=0), 2))
        return able[np.argsort(np.nanmean(errors[able], axis=1), kind='stable')]


def read_persons(path: Path) -> Persons:
    """Read what ReportHook has written.

    Raises:
        InputError: The file is missing or damaged.
    """

    def reader(path):
        with np.load(path, allow_pickle=False) as file:
            persons = Persons(**{name: file[name] for name in file.files})
        persons.run = str(persons.run)
        number, stages = persons.keypoints.shape[:2]
        for name, (kind, *shape) in COLUMNS.items():
            column = getattr(persons, name)
            if column.shape != (number, *((stages,) if name == 'keypoints' else ()), *shape):
                raise ValueError(f'{name} is of the shape {column.shape}')
            setattr(persons, name, column.astype(kind))
        return persons

    return read_file(path, reader, 'the next validation writes it again')


def joint_name(joint: int) -> str:
    """Such as 'right wrist' for 'rwri'."""
    code = JOINTS[joint]
    if code[1:] in NAMES:
        return f'{"right" if code[0] == "r" else "left"} {NAMES[code[1:]]}'
    return dict(pelv='pelvis', thor='thorax', neck='neck', head='head top')[code]


def pairs() -> dict[str, tuple[int, int]]:
    """The right and the left joint by name, for joints that are scored."""
    found = {}
    for joints in JOINT_GROUPS.values():
        for joint in joints if len(joints) == 2 else ():
            name = NAMES[JOINTS[joint][1:]]
            right_first = JOINTS[joints[0]][0] == 'r'
            found[name] = tuple(joints if right_first else joints[::-1])
    return found


def found_share(errors: np.ndarray, where: np.ndarray) -> tuple[float, int]:
    """Percent of errors at a mask that are within FOUND, and how many there are."""
    values = errors[where & np.isfinite(errors)]
    return (float(100 * np.mean(values <= FOUND)) if len(values) else np.nan), len(values)


def confusion(persons: Persons) -> dict[str, np.ndarray]:
    """For right and left joints, the share of predictions in each of PLACES, in percent.

    A prediction within FOUND of its joint is at the right place; else, within FOUND of the same joint of the
    other side or of any other joint of the person, it is there.
    """
    pred, truth = persons.keypoints[:, -1], persons.truth
    distance = np.linalg.norm(pred[:, :, None] - truth[:, None], axis=3) / persons.head_size[:, None, None]
    near = (distance <= FOUND) & persons.annotated[:, None]  # (N, predicted, true)
    shares = {}
    for name, pair in pairs().items():
        for side, own, other in (('right', *pair), ('left', *pair[::-1])):
            counted = persons.annotated[:, own]
            right = near[:, own, own]
            swapped = ~right & near[:, own, other]
            another = ~right & ~swapped & near[:, own].any(axis=1)
            places = np.stack([right, swapped, another, ~(right | swapped | another)])[:, counted]
            if counted.any():
                shares[f'{side} {name}'] = 100 * places.mean(axis=1)
    return shares


def by_size(persons: Persons) -> list[dict]:
    """PCKh of up to eight groups of equally many persons, by the longer side of their boxes in pixels."""
    size = (persons.boxes[:, 2:] - persons.boxes[:, :2]).max(axis=1)
    errors = persons.errors()
    rows = []
    groups = min(max(len(size) // 20, 2), 8, len(size))  # of fewer persons, a figure shows chance
    for part in np.array_split(np.argsort(size, kind='stable'), groups):
        share, count = found_share(errors[part], np.True_)
        rows.append(
            dict(low=size[part].min(), high=size[part].max(), persons=len(part), pckh=share, joints=count)
        )
    return rows


def by_occlusion(persons: Persons) -> dict[str, tuple[float, int]]:
    """PCKh and number of joints, by what may hide them.

    Files in MPII's layout do not tell hidden joints from visible ones. What can be told: other joints of the
    person nearby, boxes of other persons of the validation, and how many joints nobody could annotate.
    """
    errors, truth, head = persons.errors(), persons.truth, persons.head_size
    between = np.linalg.norm(truth[:, :, None] - truth[:, None], axis=3) / head[:, None, None]
    between += np.where(persons.annotated[:, None] & ~np.eye(NUM_JOINTS, dtype=bool), 0, np.inf)
    behind_itself = between.min(axis=2) <= FOUND
    crowded = np.zeros_like(behind_itself)
    _, image = np.unique(persons.images, return_inverse=True)
    order = np.argsort(image, kind='stable')
    for same in np.split(order, np.flatnonzero(np.diff(image[order])) + 1):
        for person in same if len(same) > 1 else ():
            for left, top, right, bottom in persons.boxes[same[same != person]]:
                x, y = truth[person].T
                crowded[person] |= (left <= x) & (x <= right) & (top <= y) & (y <= bottom)
    missing = len(SCORED_JOINTS) - np.isfinite(errors).sum(axis=1, keepdims=True)
    groups = {
        'free': ~behind_itself & ~crowded,
        'another joint of the person within half a head': behind_itself,
        "in another person's box": crowded,
        'all joints annotated': missing == 0,
        '1 or 2 joints not annotated': (missing > 0) & (missing <= 2),
        '3 or more joints not annotated': missing > 2,
    }
    return {name: found_share(errors, np.broadcast_to(mask, errors.shape)) for name, mask in groups.items()}
