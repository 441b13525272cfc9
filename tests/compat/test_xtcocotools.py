"""compat/xtcocotools.py, on pycocotools, measures what xtcocotools 1.14.3 has measured on the same files."""

import json

import numpy as np
import pytest

from hg_plugin.compat.xtcocotools import COCO, COCOeval, mask

PARTS = dict(keypoints=17, foot_kpts=6, face_kpts=68, lefthand_kpts=21, righthand_kpts=21)
SIGMAS = np.linspace(0.03, 0.11, sum(PARTS.values()))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Annotations and predictions of whole bodies, with crowds, persons without keypoints, images without
    persons, wrong, missing and repeated predictions, equal scores, and ids from 0."""
    rng = np.random.RandomState(0)  # the same in every NumPy
    images, truths, predictions = [], [], []
    for image_id in range(40):
        images.append(dict(id=image_id, crowdIndex=image_id / 40))
        for _ in range(rng.randint(5)):
            size = rng.uniform(20, 300)
            corner = rng.uniform(0, 200, 2)
            box = [*corner.tolist(), size, 1.4 * size]
            truth = dict(id=len(truths), image_id=image_id, category_id=1, bbox=box)
            truth['area'] = rng.uniform(0.3, 0.9) * box[2] * box[3]
            if rng.rand() < 0.3:
                truth['iscrowd'] = int(rng.rand() < 0.3)
            found = dict(image_id=image_id, category_id=1, score=round(rng.rand(), 1))
            found.update({f'{part}_score': rng.rand() for part in ('wholebody', 'foot', 'face')})
            labelled = rng.rand() < 0.9
            for part, number in PARTS.items():
                points = corner + rng.rand(number, 2) * box[2:]
                visible = rng.randint(3, size=(number, 1)) * labelled
                truth[part] = np.hstack([points, visible]).ravel().tolist()
                points += rng.normal(size=points.shape) * size * rng.choice([0.01, 0.03, 0.1])
                found[part] = np.hstack([points, rng.uniform(0.1, 1, (number, 1))]).ravel().tolist()
            truth['num_keypoints'] = int(np.count_nonzero(truth['keypoints'][2::3]))
            truths.append(truth)
            predictions += [found] * rng.choice([0, 1, 1, 1, 2])
    folder = tmp_path_factory.mktemp('coco')
    annotations = dict(images=images, annotations=truths, categories=[dict(id=1, name='person')])
    (folder / 'annotations.json').write_text(json.dumps(annotations))
    (folder / 'predictions.json').write_text(json.dumps(predictions))
    (folder / 'none.json').write_text('[]')
    return folder


def evaluate(folder, kind, sigmas=None, use_area=True, predictions='predictions.json'):
    annotations = COCO(str(folder / 'annotations.json'))
    found = annotations.loadRes(str(folder / predictions))
    evaluator = COCOeval(annotations, found, kind, sigmas, use_area)
    evaluator.params.useSegm = None  # as MMPose's metrics do
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return evaluator.stats


@pytest.mark.parametrize(
    'kind, sigmas, use_area, expected',
    [
        (
            'keypoints',
            None,
            True,
            [
                0.28166,
                0.4526139,
                0.257628,
                0.3442548,
                0.2779405,
                0.5106061,
                0.6363636,
                0.5,
                0.5052632,
                0.5116279,
            ],
        ),
        (
            'keypoints',
            SIGMAS[:17],
            False,
            [0.2197266, 0.257628, 0.2322498, 0.2544015, 0.2098707, 0.4484848, 0.5, 0.469697, 0.41, 0.45],
        ),
        (
            'keypoints_crowd',
            SIGMAS[:17],
            False,
            [0.2197266, 0.257628, 0.2322498, 0.4484848, 0.5, 0.469697, 0.3196, 0.2798, 0.121],
        ),
        (
            'keypoints_foot',
            SIGMAS[17:23],
            True,
            [
                0.2743126,
                0.3726936,
                0.3104359,
                0.3892389,
                0.2005465,
                0.4954545,
                0.5909091,
                0.530303,
                0.5105263,
                0.4418605,
            ],
        ),
        (
            'keypoints_face',
            SIGMAS[23:91],
            True,
            [
                0.3606197,
                0.5813092,
                0.3171958,
                0.3444851,
                0.3700515,
                0.5757576,
                0.7424242,
                0.5454545,
                0.5105263,
                0.5860465,
            ],
        ),
        (
            'keypoints_lefthand',
            SIGMAS[91:112],
            True,
            [
                0.4642984,
                0.6058761,
                0.466638,
                0.5838703,
                0.4371557,
                0.65,
                0.7575758,
                0.6363636,
                0.6894737,
                0.6023256,
            ],
        ),
        (
            'keypoints_righthand',
            SIGMAS[112:],
            True,
            [
                0.5145774,
                0.6058761,
                0.5401579,
                0.5788259,
                0.5137316,
                0.6893939,
                0.7575758,
                0.7121212,
                0.6947368,
                0.6651163,
            ],
        ),
        (
            'keypoints_wholebody',
            SIGMAS,
            True,
            [
                0.3714377,
                0.5704348,
                0.3605734,
                0.3925653,
                0.3418126,
                0.5757576,
                0.7424242,
                0.6060606,
                0.5526316,
                0.5697674,
            ],
        ),
    ],
)
def test_precision_is_that_of_xtcocotools(folder, kind, sigmas, use_area, expected):
    np.testing.assert_allclose(evaluate(folder, kind, sigmas, use_area), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize('kind, number', [('keypoints', 10), ('keypoints_crowd', 9)])
def test_nothing_found_has_precision_0(folder, kind, number):
    np.testing.assert_array_equal(evaluate(folder, kind, predictions='none.json'), np.zeros(number))


def test_masks_of_polygons():
    square = mask.frPyObjects([[2, 1, 6, 1, 6, 4, 2, 4]], 5, 8)
    assert mask.decode(mask.merge(square)).tolist()[2] == [0, 0, 1, 1, 1, 1, 0, 0]
