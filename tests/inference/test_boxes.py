import json
from pathlib import Path

import numpy as np
import pytest

from hg_plugin.inference.boxes import boxes_and_scores, read_boxes
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
        [dict(frame_id=frame, boxes=boxes) for frame, boxes in FRAMES.items()],
        [  # MMPose's predictions for a video
            dict(frame_id=frame, instances=[dict(bbox=[box], bbox_score=0.5) for box in boxes])
            for frame, boxes in FRAMES.items()
        ],
        [  # COCO's detections, an image a frame
            dict(image_id=frame, category_id=1, bbox=[*box[:2], 30, 40], score=0.5)
            for frame, boxes in FRAMES.items()
            for box in boxes
        ],
        [
            dict(file_name='clip.mp4', frame_id=frame, bbox=[*box[:2], 30, 40], score=0.5)
            for frame, boxes in FRAMES.items()
            for box in boxes
        ],
    ],
)
def test_boxes_of_frames(tmp_path, content):
    (tmp_path / 'boxes.json').write_text(json.dumps(content))
    assert corners(read_boxes(tmp_path / 'boxes.json', [CLIP])[CLIP]) == FRAMES


def test_boxes_of_all_frames_and_of_images_among_videos(tmp_path):
    inputs = [CLIP, Path('a/12.jpg'), 'rtsp://host/live']
    content = [
        dict(image_id=12, bbox=[1, 2, 30, 40], score=0.9),
        dict(file_name='clip.mp4', frame_id=3, bbox=[5, 6, 30, 40]),
    ]
    (tmp_path / 'boxes.json').write_text(json.dumps(content))
    found = read_boxes(tmp_path / 'boxes.json', inputs)
    assert found == {inputs[1]: [[1, 2, 31, 42, 0.9]], CLIP: {3: [[5, 6, 35, 46, 1]]}}
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


def test_the_boxes_of_an_image_or_a_frame():
    image = np.zeros((50, 60, 3), np.uint8)
    for given, frame, boxes, scores in [
        (None, 0, [[0, 0, 60, 50]], [1]),
        ([[1, 2, 31, 42]], 5, [[1, 2, 31, 42]], [1]),
        (np.array([[1, 2, 31, 42, 0.5]]), 0, [[1, 2, 31, 42]], [0.5]),
        (FRAMES, 2, FRAMES[2], [1, 1]),
        (FRAMES, 1, np.zeros((0, 4)), []),  # nobody is there
        ([], 0, np.zeros((0, 4)), []),
    ]:
        found = boxes_and_scores(given, image, frame)
        np.testing.assert_array_equal(found[0], boxes)
        np.testing.assert_array_equal(found[1], np.float32(scores))
    with pytest.raises(ImageError, match='lies outside'):
        boxes_and_scores({0: [[100, 0, 120, 10]]}, image, 0)
