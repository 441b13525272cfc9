"""What the predictions of a validation tell: which persons and joints are hard."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mmpose.datasets.datasets.utils import parse_pose_metainfo

from hg_plugin.datasets import MPIIPoseDataset
from hg_plugin.evaluation import pckh, pckh_curves
from hg_plugin.mpii_format import JOINT_GROUPS, NUM_JOINTS, SCORED_JOINTS
from hg_plugin.utils.array_files import read_file

# from head to feet, the right joint before the left, of those that are scored
JOINT_ORDER = [9, 8, *(joint for pair in JOINT_GROUPS.values() for joint in pair if joint != 9)]
# where a prediction falls: the first that holds, within half a head
PLACES = ('right place', 'other side', 'another joint', 'elsewhere')


@dataclass
class Persons:
    """N persons of a validation, S stages and 16 joints, in 0-based pixels of the images."""

    ids: np.ndarray  # (N,), rows of the annotation file
    images: np.ndarray  # (N,) paths
    keypoints: np.ndarray  # (N, S, 16, 2)
    truth: np.ndarray  # (N, 16, 2)
    annotated: np.ndarray  # (N, 16) bool
    head_size: np.ndarray  # (N,)
    boxes: np.ndarray  # (N, 4), left, top, right, bottom
    centers: np.ndarray  # (N, 2), of the network's inputs
    scales: np.ndarray  # (N, 2)
    run: str  # the start of the training that wrote them
    weights: str = 'annotations'  # how its metric averages joints; older files do not say

    def errors(self) -> np.ndarray:
        """(N, 16) distances to the truth in head sizes; NaN where a joint is not annotated or not scored."""
        distance = np.linalg.norm(self.keypoints[:, -1] - self.truth, axis=2) / self.head_size[:, None]
        scored = np.isin(np.arange(NUM_JOINTS), SCORED_JOINTS)
        return np.where(self.annotated & scored, distance, np.nan)

    def curves(self, stage: int = -1) -> dict[str, np.ndarray]:
        """PCKh over the threshold, see :func:`hg_plugin.evaluation.pckh_curves`."""
        people = self.keypoints[:, stage], self.truth, self.annotated, self.head_size
        return pckh_curves(*people, weights=self.weights)

    def joints(self, stage: int = -1) -> dict[str, float]:
        """PCKh@0.5 by the name of the joint."""
        people = self.keypoints[:, stage], self.truth, self.annotated, self.head_size
        (values,) = pckh(*people, thresholds=[0.5])
        return {joint_name(joint): values[joint] for joint in JOINT_ORDER}

    def ranking(self) -> np.ndarray:
        """Persons from the smallest to the largest mean error, of those with half of the joints or more."""
        errors = self.errors()
        counts = np.isfinite(errors).sum(axis=1)
        able = np.flatnonzero(counts * 2 >= max(counts.max(initial=0), 2))
        return able[np.argsort(np.nanmean(errors[able], axis=1), kind='stable')]

    def sides(self) -> dict[str, dict[str, float]]:
        """For right and left joints, the share of predictions at each of PLACES, in percent, by place."""
        pred, truth = self.keypoints[:, -1], self.truth
        distance = np.linalg.norm(pred[:, :, None] - truth[:, None], axis=3) / self.head_size[:, None, None]
        near = (distance <= 0.5) & self.annotated[:, None]  # (N, predicted, true)
        shares: dict[str, dict[str, float]] = {place: {} for place in PLACES}
        for pair in (pair for pair in JOINT_GROUPS.values() if len(pair) == 2):
            for own, other in (pair, pair[::-1]):
                joint = near[self.annotated[:, own], own]
                places = np.select([joint[:, own], joint[:, other], joint.any(axis=1)], [0, 1, 2], 3)
                for place, count in zip(PLACES, np.bincount(places, minlength=4)):
                    shares[place][joint_name(own)] = 100 * count / max(len(joint), 1)
        return shares


def read_persons(path: Path) -> Persons:
    """Read what ReportHook has written.

    Raises:
        InputError: The file is missing or damaged.
    """

    def reader(path):
        with np.load(path, allow_pickle=False) as file:
            return Persons(**{**file, **{key: str(file[key]) for key in ('run', 'weights') if key in file}})

    return read_file(path, reader, 'the next validation writes it again')


@functools.cache
def mpii_meta() -> dict:
    """MMPose's names and colors of MPII's joints."""
    return parse_pose_metainfo(dict(MPIIPoseDataset.METAINFO))


def joint_name(joint: int) -> str:
    """Such as 'right wrist'."""
    return mpii_meta()['keypoint_id2name'][joint].replace('_', ' ')
