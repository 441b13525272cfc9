"""What the predictions of a validation tell: which persons and joints are hard."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmpose.datasets.datasets.utils import parse_pose_metainfo

from hg_plugin.datasets import MPIIPoseDataset
from hg_plugin.evaluation import pckh_curves
from hg_plugin.mpii_format import JOINT_GROUPS, JOINTS, NUM_JOINTS, SCORED_JOINTS
from hg_plugin.utils.array_files import read_file

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
            return Persons(**{**file, 'run': str(file['run'])})

    return read_file(path, reader, 'the next validation writes it again')


@functools.cache
def mpii_meta() -> dict:
    """MMPose's names and colors of MPII's joints."""
    return parse_pose_metainfo(dict(MPIIPoseDataset.METAINFO))


def joint_name(joint: int) -> str:
    """Such as 'right wrist'."""
    return mpii_meta()['keypoint_id2name'][joint].replace('_', ' ')


def confusion(persons: Persons) -> dict[str, np.ndarray]:
    """For right and left joints, the share of predictions in each of PLACES, in percent.

    A prediction within FOUND of its joint is at the right place; else, within FOUND of the same joint of the
    other side or of any other joint of the person, it is there.
    """
    pred, truth = persons.keypoints[:, -1], persons.truth
    distance = np.linalg.norm(pred[:, :, None] - truth[:, None], axis=3) / persons.head_size[:, None, None]
    near = (distance <= FOUND) & persons.annotated[:, None]  # (N, predicted, true)
    shares = {}
    for pair in (pair for pair in JOINT_GROUPS.values() if len(pair) == 2):
        for own, other in sorted((pair, pair[::-1]), key=lambda joints: JOINTS[joints[0]], reverse=True):
            counted = persons.annotated[:, own]
            right = near[:, own, own]
            swapped = ~right & near[:, own, other]
            another = ~right & ~swapped & near[:, own].any(axis=1)
            places = np.stack([right, swapped, another, ~(right | swapped | another)])[:, counted]
            if counted.any():
                shares[joint_name(own)] = 100 * places.mean(axis=1)
    return shares
