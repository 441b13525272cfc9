import json
from types import SimpleNamespace
from unittest.mock import Mock

import cv2
import numpy as np
import pytest

from hg_plugin.datasets.detected_boxes import iou
from hg_plugin.inference import find
from hg_plugin.inference.files import infer_files
from hg_plugin.inference.pose_estimator import PoseEstimator


@pytest.fixture(scope='module')
def estimator():
    return PoseEstimator(device='cpu')


@pytest.fixture
def person(real_data):
    """A held photograph of one person, and the box."""
    folder = real_data('lspet_mpii')
    entry = json.loads((folder / 'annotations/mpii_val.json').read_text())[0]
    image = cv2.imread(str(folder / 'images' / entry['image']))
    center = np.array(entry['center']) + [0, 15 * entry['scale']]
    return image, np.concatenate([center - 100 * entry['scale'], center + 100 * entry['scale']])


def test_a_person_is_found(estimator, person):
    image, box = person
    poses = estimator(image)
    assert 1 <= len(poses) <= 3
    assert iou(poses.boxes, box).max() > 0.4 and (poses.box_scores >= find.MIN_PERSON).all()
    assert len(estimator(image, whole_image=True)) == 1


@pytest.mark.parametrize('image', [np.full((90, 120, 3), 127, np.uint8), np.zeros((5, 900, 3), np.uint8)])
def test_nobody_is_found_in_nothing(estimator, image):
    assert len(estimator(image)) == 0


def test_keypoints_refined_to_anywhere_stay_near_their_box():
    class Wild:
        annotated = np.ones(16, bool)

        def __call__(self, image, boxes):
            return SimpleNamespace(keypoints=np.full((1, 16, 2), [1e5, -1e5]), scores=np.zeros((1, 16)))

    keypoints, _ = find._look(Wild(), np.zeros((90, 120, 3)), np.array([[10, 20, 40, 50.0]]))
    assert (keypoints == [70, -10]).all()


def test_pixels_do_not_matter(estimator, person):
    image, _ = person
    large = cv2.resize(image, None, fx=5, fy=5, interpolation=cv2.INTER_CUBIC)
    boxes, large_boxes = estimator(image).boxes, estimator(large).boxes / 5
    assert iou(large_boxes, boxes[0]).max() > 0.5


def test_a_person_is_followed_in_a_video(estimator, person, monkeypatch):
    image, box = person
    search = Mock(wraps=find.find_people)
    monkeypatch.setattr(find, 'find_people', search)
    follow = find.Follower(estimator)
    for shift in range(0, 12):
        searches = search.call_count
        boxes = follow(np.roll(image, shift, axis=1))
        least = 0.4 if search.call_count == searches else 0.3  # a search may take a part for the person
        assert iou(boxes[:, :4], box + [shift, 0, shift, 0]).max() > least
    assert search.call_count == 2


def test_an_image_without_a_person_is_told(tmp_path, capsys):
    cv2.imwrite(str(tmp_path / 'gray.png'), np.full((90, 120, 3), 127, np.uint8))
    infer_files(None, None, tmp_path / 'gray.png', out_dir=tmp_path / 'out', device='cpu')
    told = capsys.readouterr().err
    assert 'No person was found in 1 images' in told
    assert json.loads((tmp_path / 'out/predictions/gray.json').read_text())['persons'] == []


def test_doubles_are_dropped():
    boxes = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [30, 0, 40, 10]], float)
    assert list(find._nms(boxes, np.array([0.5, 0.6, 0.7]))) == [2, 1]
    assert list(find._nms(np.zeros((0, 4)), np.zeros(0))) == []


def test_of_a_part_and_a_whole_person_the_whole_is_kept():
    boxes, scores = np.array([[0, 0, 10, 10], [0, 0, 10, 20]], float), np.full((2, 16), 0.8)
    scores[1] = 0.75
    assert find._persons(boxes, scores).tolist() == [[0, 0, 10, 20, 0.75]]
    scores[1] = 0.5
    assert find._persons(boxes, scores)[0, 3] == 10
