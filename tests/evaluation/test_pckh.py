import math
import re

import numpy as np
import pytest
from mmpose.evaluation import MpiiPCKAccuracy

from hg_plugin.evaluation import METRIC_NAMES, THRESHOLDS, pckh, pckh_curves, pckh_metrics, pckh_table


def count_by_hand(pred, gt, visible, head_size, threshold):
    """Per joint: (right, annotated), in plain Python."""
    tally = [[0, 0] for _ in range(16)]
    for n in range(len(pred)):
        for k in range(16):
            if visible[n][k]:
                tally[k][1] += 1
                dx, dy = float(pred[n][k][0] - gt[n][k][0]), float(pred[n][k][1] - gt[n][k][1])
                tally[k][0] += math.sqrt(dx * dx + dy * dy) <= threshold * head_size[n]
    return tally


def metrics(people, **kwargs):
    return pckh_metrics(pckh_curves(**people, **kwargs))


@pytest.mark.parametrize('weights', ['annotations', 'equal'])
def test_columns_agree_with_a_plain_loop(people, weights):
    scored = [k for k in range(16) if k not in (6, 7)]

    def mean(threshold):
        tally = count_by_hand(**people, threshold=threshold)
        if weights == 'annotations':
            return 100 * sum(tally[k][0] for k in scored) / sum(tally[k][1] for k in scored)
        return sum(100 * tally[k][0] / tally[k][1] for k in scored) / 14

    joint = [100 * right / annotated for right, annotated in count_by_hand(**people, threshold=0.5)]
    expected = {
        'Head': joint[9],
        'Shoulder': (joint[12] + joint[13]) / 2,
        'Elbow': (joint[11] + joint[14]) / 2,
        'Wrist': (joint[10] + joint[15]) / 2,
        'Hip': (joint[2] + joint[3]) / 2,
        'Knee': (joint[1] + joint[4]) / 2,
        'Ankle': (joint[0] + joint[5]) / 2,
        'Mean': mean(0.5),
        'Mean@0.1': mean(0.1),
        'AUC': sum(mean(i / 100) for i in range(51)) / 51,
    }
    got = metrics(people, weights=weights)
    assert list(got) == list(expected) == list(METRIC_NAMES)
    assert all(type(value) is float for value in got.values())
    assert got == pytest.approx(expected, rel=1e-12)


def test_a_distance_equal_to_the_threshold_is_right():
    gt = np.zeros((1, 1, 2))
    pred = np.array([[[3.0, 4.0]]])
    just_more = np.nextafter(pred, 9)
    one = dict(gt=gt, visible=np.ones((1, 1)), head_size=np.array([10.0]), thresholds=[0.49, 0.5, 0.51])
    assert pckh(pred, **one).ravel().tolist() == [0, 100, 100]
    assert pckh(just_more, **one).ravel().tolist() == [0, 0, 100]
    assert pckh(gt, **{**one, 'thresholds': [0]}).ravel().tolist() == [100]


def test_thresholds_are_the_nearest_floats_to_their_decimals():
    assert THRESHOLDS.tolist() == [float(f'0.{i:02}') for i in range(51)]


def test_joints_that_nobody_annotated_are_nan_and_in_no_average(people):
    people['visible'][:, [6, 7, 9, 12]] = False  # both joints of no column, the only joint of one, one of two
    people['gt'][:, [6, 9]] = np.nan  # what stands there must not matter
    values = pckh(**people)
    assert np.isnan(values).all(axis=0).nonzero()[0].tolist() == [6, 7, 9, 12]
    assert not np.isnan(np.delete(values, [6, 7, 9, 12], axis=1)).any()
    rest = [0, 1, 2, 3, 4, 5, 8, 10, 11, 13, 14, 15]
    counts = people['visible'].sum(axis=0)
    got = metrics(people)
    assert math.isnan(got['Head'])
    assert got['Shoulder'] == values[-1, 13]
    assert got['Mean'] == pytest.approx(np.average(values[-1, rest], weights=counts[rest]))
    assert metrics(people, weights='equal')['Mean'] == pytest.approx(values[-1, rest].mean())
    people['visible'][:] = 0
    assert all(math.isnan(value) for value in metrics(people).values())


def test_pelvis_and_thorax_do_not_count_and_the_upper_neck_counts_in_the_mean_alone(people):
    before = metrics(people)
    people['pred'][:, [6, 7]] += 1e4
    assert metrics(people) == before
    people['pred'][:, 8] += 1e4
    after = metrics(people)
    assert {column for column in before if after[column] != before[column]} == {'Mean', 'Mean@0.1', 'AUC'}


def test_a_prediction_that_is_not_a_number_is_wrong(people):
    people['visible'][:] = True
    people['pred'] = people['gt'].copy()
    people['pred'][0, 9] = np.nan
    assert metrics(people)['Head'] == pytest.approx(100 * 30 / 31)
    assert metrics(people)['Knee'] == 100


@pytest.mark.parametrize(
    'key, size', [('pred', (31, 16, 3)), ('gt', (3, 16, 2)), ('visible', (31, 16, 1)), ('head_size', (31, 1))]
)
def test_shapes_that_do_not_belong_together_are_named(people, key, size):
    with pytest.raises(ValueError, match=re.escape(str(size))):
        pckh(**{**people, key: np.ones(size)})


def test_another_number_of_joints_makes_no_columns(people):
    people = {key: array[:, :14] if array.ndim > 1 else array for key, array in people.items()}
    with pytest.raises(ValueError, match='14'):
        pckh_curves(**people)


def test_table_has_the_papers_columns_two_decimals_and_a_dash_for_nan(people):
    people['visible'][:, 9] = False
    row = metrics(people)
    lines = pckh_table({'ours': row, 'a longer name': row}, weights='equal').splitlines()
    assert lines[0] == 'PCKh@0.5 in percent, Mean of the joints with equal weights'
    assert lines[1].split() == 'Head Shoulder Elbow Wrist Hip Knee Ankle Mean Mean@0.1 AUC'.split()
    assert lines[2].split() == ['ours', '-'] + [f'{row[column]:.2f}' for column in lines[1].split()[1:]]
    assert len({len(line) for line in lines[1:]}) == 1


def test_agrees_with_mmpose_when_it_is_fed_the_frame_that_it_expects(people):
    metric = MpiiPCKAccuracy(prefix='stock')
    for pred, gt, visible, head_size in zip(*people.values()):  # 1-based truth and 0-based predictions
        truth = dict(keypoints=gt[None] + 1, keypoints_visible=visible[None], head_size=head_size[None, None])
        metric.process(None, [dict(pred_instances=dict(keypoints=pred[None]), gt_instances=truth)])
    stock = metric.evaluate(31)
    ours = metrics(people)
    for column in ('Head', 'Shoulder', 'Elbow', 'Wrist', 'Hip', 'Knee', 'Ankle'):
        assert ours[column] == pytest.approx(stock[f'stock/{column} PCK'], abs=1e-5)
    assert ours['Mean'] == pytest.approx(stock['stock/PCK'], abs=1e-5)
    assert ours['Mean@0.1'] == pytest.approx(stock['stock/PCK@0.1'], abs=1e-5)
