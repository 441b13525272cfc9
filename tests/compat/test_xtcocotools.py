"""compat/xtcocotools.py, on pycocotools, measures what xtcocotools 1.14.3 has measured on the same files."""

import json

import numpy as np
import pytest

from hg_plugin.compat.xtcocotools import COCO, COCOeval, mask

PARTS = dict(keypoints=17, foot_kpts=6, face_kpts=68, lefthand_kpts=21, righthand_kpts=21)
SIGMAS = np.linspace(0.03, 0.11, sum(PARTS.values()))[:17]


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


# kind, sigmas and whether areas count
CASES = [('keypoints', None, True), ('keypoints', SIGMAS, False), ('keypoints_crowd', SIGMAS, False)]
# their precision and recall as xtcocotools 1.14.3 measures them
MEASURED = """\
.281660 .452614 .257628 .344255 .277940 .510606 .636364 .500000 .505263 .511628
.219727 .257628 .232250 .254402 .209871 .448485 .500000 .469697 .410000 .450000
.219727 .257628 .232250 .448485 .500000 .469697 .319600 .279800 .121000
"""


@pytest.mark.parametrize('case, expected', [*zip(CASES, MEASURED.splitlines())])
def test_precision_is_that_of_xtcocotools(folder, case, expected):
    np.testing.assert_allclose(evaluate(folder, *case), [*map(float, expected.split())], rtol=0, atol=1e-6)


def test_annotations_are_read_without_a_word(folder, capsys):
    assert len(COCO(str(folder / 'annotations.json')).imgs) == 40
    assert not capsys.readouterr().out


@pytest.mark.parametrize('kind, number', [('keypoints', 10), ('keypoints_crowd', 9)])
def test_nothing_found_has_precision_0(folder, kind, number):
    np.testing.assert_array_equal(evaluate(folder, kind, predictions='none.json'), np.zeros(number))


def test_masks_of_polygons():
    square = mask.frPyObjects([[2, 1, 6, 1, 6, 4, 2, 4]], 5, 8)
    assert mask.decode(mask.merge(square)).tolist()[2] == [0, 0, 1, 1, 1, 1, 0, 0]
