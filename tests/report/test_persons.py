import numpy as np
import pytest

from hg_plugin.mpii_format import JOINTS, SCORED_JOINTS
from hg_plugin.report.persons import Persons, read_persons
from hg_plugin.utils.errors import InputError

WRISTS = JOINTS.index('rwri'), JOINTS.index('lwri')


@pytest.fixture
def persons():
    """Ten persons whose joints are 3 heads of 10 pixels apart, and predicted exactly."""
    points = np.stack([np.arange(16) * 30.0, np.zeros(16)], axis=1)
    truth = np.repeat(points[None], 10, axis=0)
    size = 100.0 + 10 * np.arange(10)
    return Persons(
        images=np.array([f'{index}.jpg' for index in range(10)]),
        keypoints=truth[:, None].copy(),
        truth=truth,
        annotated=np.ones((10, 16), bool),
        head_size=np.full(10, 10.0),
        boxes=np.stack([np.zeros(10), np.full(10, -5.0), size, size], axis=1),
        centers=np.zeros((10, 2)),
        scales=np.ones((10, 2)),
        ids=np.arange(10),
        run='',
    )


def test_ranking(persons):
    persons.keypoints[3, 0, :, 1] = 40  # 4 heads
    persons.keypoints[7, 0, :, 1] = 20
    persons.keypoints[5, 0, :, 1] = 900
    persons.annotated[5, 4:] = False  # too few to count
    ranking = persons.ranking()
    assert 5 not in ranking and ranking[-2:].tolist() == [7, 3] and len(ranking) == 9
    assert np.nanmean(persons.errors()[3]) == 4
    # pelvis and thorax are not scored
    assert np.isfinite(persons.errors()[3]).nonzero()[0].tolist() == SCORED_JOINTS


def test_sides(persons):
    right, left = WRISTS
    persons.keypoints[:4, 0, right] = persons.truth[:4, left]
    persons.keypoints[4:6, 0, right] = persons.truth[4:6, JOINTS.index('head')]
    persons.keypoints[6, 0, right] = 5000
    shares = persons.sides()
    assert [own['right wrist'] for own in shares.values()] == [30, 40, 20, 10]
    assert [own['left wrist'] for own in shares.values()] == [100, 0, 0, 0]
    persons.annotated[:4, left] = False  # then nobody knows where it is
    assert [own['right wrist'] for own in persons.sides().values()] == [30, 0, 20, 50]


def test_damaged_predictions(tmp_path):
    (tmp_path / 'predictions.npz').write_bytes(b'PK\3\4 and no more')
    with pytest.raises(InputError, match='the next validation writes it again'):
        read_persons(tmp_path / 'predictions.npz')
