import numpy as np
from card import persons_of

from hg_plugin.report.persons import confusion


def test_left_and_right_changed(random=np.random.default_rng(0)):
    truth = random.permutation(16).reshape(1, 16, 1).repeat(2, 2).astype(float) * 10
    found = truth.copy()
    found[:, [0, 5]] = found[:, [5, 0]]  # the ankles
    sample = dict(
        id=3,
        img_path='a.jpg',
        input_center=np.zeros(2),
        input_scale=np.ones(2),
        gt_instances=dict(
            keypoints=truth,
            keypoints_visible=np.ones((1, 16)),
            head_size=np.array([10.0]),
            bboxes=np.zeros((1, 4)),
        ),
        pred_instances=dict(keypoints=found),
    )
    persons = persons_of([sample, sample])
    assert persons.ids.tolist() == [3, 3]
    shares = confusion(persons)
    assert shares['left ankle'].tolist() == [0, 100, 0, 0] and shares['left knee'].tolist() == [100, 0, 0, 0]
