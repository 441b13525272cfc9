import json

import numpy as np
import pytest

from hg_plugin.datasets.detected_boxes import detected_boxes
from hg_plugin.utils.errors import InputError

BOXES = np.array([[0, 0, 100, 100], [200, 0, 300, 100], [0, 0, 50, 50]], np.float32)
IMAGES = ['000012.jpg', '000012.jpg', 'b.png']


def write(path, *detections):
    keys = ('image_id', 'bbox', 'score', 'category_id')
    path.write_text(json.dumps([dict(zip(keys, detection)) for detection in detections]))
    return str(path)


@pytest.mark.parametrize('first, last', [(12, 'b'), ('000012.jpg', 'b.png'), ('000012', 'b')])
def test_each_person_gets_the_box_that_overlaps_most(tmp_path, first, last):
    path = write(
        tmp_path / 'detections.json',
        (first, [190, 5, 100, 90], 0.9, 1),
        (first, [10, 10, 80, 85], 0.8, 1),
        (first, [60, 60, 60, 60], 0.99, 1),
        (first, [0, 0, 100, 100], 1.0, 17),  # a dog
        (last, [5, 5, 40, 40], 0.7, 1),
    )
    boxes, scores = detected_boxes(path, IMAGES, BOXES)
    assert boxes.tolist() == [[10, 10, 90, 95], [190, 5, 290, 95], [5, 5, 45, 45]]
    assert np.allclose(scores, [0.8, 0.9, 0.7]) and boxes.dtype == scores.dtype == np.float32


def test_a_person_that_was_not_detected_keeps_its_box(tmp_path):
    path = write(tmp_path / 'detections.json', ('b', [500, 500, 9, 9], 0.9, 1), (12, [0, 0, 90, 90], 0.8, 1))
    boxes, scores = detected_boxes(path, IMAGES, BOXES)
    assert np.array_equal(boxes[1:], BOXES[1:]) and scores[1:].tolist() == [0, 0] and boxes[0, 2] == 90


def test_detections_of_other_images_are_refused(tmp_path):
    path = write(tmp_path / 'detections.json', ('c.jpg', [0, 0, 9, 9], 0.9, 1))
    with pytest.raises(InputError, match='has no box of a person in the images of the annotations'):
        detected_boxes(path, IMAGES, BOXES)
    (tmp_path / 'detections.json').write_text('{"b": 1}')
    with pytest.raises(InputError, match='should be a list'):
        detected_boxes(path, IMAGES, BOXES)


@pytest.mark.parametrize(
    'detection', [3, {}, dict(image_id='b'), dict(image_id='b', bbox=['1', 2, 3, 4]), dict(bbox=[1, 2, 3, 4])]
)
def test_a_wrong_detection_is_named(tmp_path, detection):
    (tmp_path / 'detections.json').write_text(json.dumps([detection]))
    with pytest.raises(InputError, match=r'detections.json\[0\].* should be'):
        detected_boxes(tmp_path / 'detections.json', IMAGES, BOXES)


def test_a_score_of_0_is_no_miss(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr('hg_plugin.datasets.detected_boxes.print_log', lambda *text: told.append(text))
    path = write(tmp_path / 'detections.json', (12, [0, 0, 90, 90], 0.0, 1), (12, [200, 0, 90, 90], 0.0, 1))
    boxes, _ = detected_boxes(path, IMAGES[:2], BOXES[:2])
    assert boxes[:, 2].tolist() == [90, 290] and not told
