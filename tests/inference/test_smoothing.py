import numpy as np

from hg_plugin.inference.smoothing import PersonIds, Smoother


def smooth(keypoints, boxes, fps=30):
    persons, smoother = PersonIds(), Smoother(fps)
    results = []
    for b, k in zip(boxes, keypoints):
        ids = persons(b)
        results.append((smoother(ids, b, k), ids))
    return results


def test_jitter_goes_and_movement_stays():
    frames = np.arange(90)
    random = np.random.RandomState(0)
    rest = np.array([100.0, 200.0]) + random.normal(0, 2, (90, 1, 1, 2))
    moving = np.array([100.0, 200.0]) + frames[:, None, None, None] * [8.0, 0.0]  # 1.2 boxes a second
    boxes = [np.array([[0.0, 100, 100, 300]])] * 90
    smoothed = np.array([points for points, _ in smooth(rest, boxes)])
    assert smoothed[20:].std(axis=0).max() < 0.7 * rest[20:].std(axis=0).min()
    smoothed = np.array([points for points, _ in smooth(moving, boxes)])
    assert np.abs(smoothed[30:] - moving[30:]).max() < 16  # two frames behind


def test_persons_are_matched_by_their_boxes_whatever_their_order():
    left, right = [0.0, 0, 50, 100], [200.0, 0, 250, 100]
    points = np.full((2, 3, 2), [[[20.0, 20]], [[220.0, 20]]])
    boxes = [np.array([left, right]), np.array([right, left]), np.zeros((0, 4)), np.array([left, right])]
    keypoints = [points, points[::-1], np.zeros((0, 3, 2)), points]
    results = smooth(keypoints, boxes)
    assert [numbers for _, numbers in results] == [[0, 1], [1, 0], [], [2, 3]]
    for (smoothed, _), expected in zip(results, keypoints):
        np.testing.assert_allclose(smoothed, expected)
