import json
from pathlib import Path

import numpy as np
import pytest

from hg_plugin.inference.boxes import check_boxes, read_boxes
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.images import ImageError

CLIP = Path('in/clip.mp4')
FRAMES = {0: [[1, 2, 31, 42]], 2: [[3, 4, 33, 44], [5, 6, 35, 46]]}


def corners(boxes):
    return {frame: [[*row[:4]] for row in rows] for frame, rows in boxes.items() if rows}


@pytest.mark.parametrize(
    'content',
    [
        {'clip.mp4': [FRAMES[0], [], FRAMES[2]]},
        {'in/clip.mp4': {'0': FRAMES[0], '2': FRAMES[2]}},
        [FRAMES[0], [], FRAMES[2]],
        [  # COCO's detections, an image a frame
            dict(image_id=frame, category_id=1, bbox=[*box[:2], 30, 40], score=0.5)
            for frame, boxes in FRAMES.items()
            for box in boxes
        ],
    ],
)
def test_boxes_of_frames(tmp_path, content):
    (tmp_path / 'boxes.json').write_text(json.dumps(content))
    assert corners(read_boxes(tmp_path / 'boxes.json', [CLIP])[CLIP]) == FRAMES


def test_boxes_of_images_among_videos(tmp_path):
    inputs = [CLIP, Path('a/12.jpg'), 'rtsp://host/live']
    (tmp_path / 'boxes.json').write_text('[{"image_id": 12, "bbox": [1, 2, 30, 40], "score": 0.9}]')
    assert read_boxes(tmp_path / 'boxes.json', inputs) == {inputs[1]: [[1, 2, 31, 42, 0.9]]}
    given = {'clip.mp4': [[1, 2, 3, 4]], 'rtsp://host/live': [[5, 6, 7, 8]]}
    assert read_boxes(given, inputs) == {CLIP: [[1, 2, 3, 4]], inputs[2]: [[5, 6, 7, 8]]}


def test_annotations_of_coco(tmp_path):
    content = dict(
        images=[dict(id=7, file_name='val2017/a.jpg')],
        annotations=[
            dict(image_id=7, category_id=1, bbox=[1, 2, 30, 40]),
            dict(image_id=7, category_id=18, bbox=[1, 2, 30, 40]),  # a dog
        ],
        categories=[],
    )
    (tmp_path / 'coco.json').write_text(json.dumps(content))
    assert read_boxes(tmp_path / 'coco.json', [Path('a.jpg')]) == {Path('a.jpg'): [[1, 2, 31, 42, 1]]}


def test_the_boxes_of_an_image():
    image = np.zeros((50, 60, 3), np.uint8)
    for given, boxes, scores in [
        (None, [[0, 0, 60, 50]], [1]),
        ([[1, 2, 31, 42]], [[1, 2, 31, 42]], [1]),
        ([[1, 2, 31, 42], [1, 2, 31, 42, 0.5]], [[1, 2, 31, 42]] * 2, [1, 0.5]),
        (np.array([[1, 2, 31, 42, 0.5]]), [[1, 2, 31, 42]], [0.5]),
        ([], np.zeros((0, 4)), []),  # nobody is there
    ]:
        found = check_boxes(given, image)
        np.testing.assert_array_equal(found[0], boxes)
        np.testing.assert_array_equal(found[1], np.float32(scores))


@pytest.mark.parametrize(
    'box, problem',
    [
        ([100, 0, 120, 10], 'outside'),
        ([-500, -400, -300, 0.5], 'outside'),  # and not in shares
        ([0.1, 0.1, 0.5, 1], 'shares'),
        ([0, 0, 10, float('nan')], 'inverted'),
        ([0, 0, 10], 'numbers'),
        ('abcd', 'numbers'),
    ],
)
def test_boxes_that_are_none(box, problem):
    with pytest.raises(ImageError, match=problem):
        check_boxes([box], np.zeros((50, 60, 3), np.uint8))


def test_an_image_that_is_too_large_for_opencv():
    with pytest.raises(ImageError, match='32,767'):
        check_boxes(None, np.zeros((1, 2**15, 3), np.uint8))


WRONG = [
    *('3', '[null]', '["a.jpg"]', '[[1, 2, 3]]', '{"a.jpg": [[1, 2, 3, null]]}', '{"a.jpg": {"x": []}}'),
    *('[{"image_id": "a"}]', '[{"image_id": "a", "bbox": [1, 2, 3]}]', '[{"bbox": [1, 2, 3, 4]}]'),
    *('{"images": [{}], "annotations": []}', '{"persons": 3}', '{"frames": [{}]}', '{"a.jpg": [[1, 2'),
]


@pytest.mark.parametrize('content', WRONG)
@pytest.mark.parametrize('name', ['a.jpg', 'a.mp4'])
def test_whatever_is_wrong_with_a_file_is_one_sentence(tmp_path, content, name):
    (tmp_path / 'boxes.json').write_text(content.replace('a.jpg', name))
    with pytest.raises(InputError, match='boxes.json'):
        read_boxes(tmp_path / 'boxes.json', [Path(name)])


def test_a_byte_order_mark_and_other_names_than_ascii(tmp_path):
    (tmp_path / 'boxes.json').write_text('\ufeff{"照片.jpg": [[1, 2, 31, 42]]}', encoding='utf-8')
    assert read_boxes(tmp_path / 'boxes.json', [Path('照片.jpg')]) == {Path('照片.jpg'): [[1, 2, 31, 42]]}


def test_results_of_infer_are_boxes(tmp_path):
    person = dict(box=[1, 2, 31, 42], box_score=0.5, keypoints=[], keypoint_scores=[])
    video = dict(video='/clip.mp4', frames=[dict(frame_id=3, persons=[person])])
    for content, found in [
        (dict(image='/photos/a.jpg', persons=[person]), {Path('a.jpg'): [[1, 2, 31, 42, 0.5]]}),
        (video, {CLIP: {3: [[1, 2, 31, 42, 0.5]]}}),
    ]:
        (tmp_path / 'a.json').write_text(json.dumps(content))
        assert read_boxes(tmp_path / 'a.json', [Path('a.jpg'), Path('b.jpg'), CLIP]) == found
