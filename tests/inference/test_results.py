import json

import cv2
import numpy as np
import pytest
from PIL import Image

from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.inference.results import Poses
from hg_plugin.utils.errors import InputError

META = dict(
    keypoint_id2name={0: 'left_hip', 1: 'pelvis', 2: 'right_hip'},
    keypoint_name2id=dict(left_hip=0, pelvis=1, right_hip=2),
    keypoint_colors=[[0, 255, 0], [0, 0, 255], [255, 0, 0]],
    skeleton_links=[(0, 1), (1, 2)],
    skeleton_link_colors=[[9, 9, 9]] * 2,
    unannotated_keypoints=['pelvis'],
)


@pytest.fixture
def poses():
    return Poses(
        keypoints=np.float32([[[20, 30], [0, 0], [60, 30]], [[5.123, 8], [0, 0], [9, 8]]]),
        scores=np.float32([[0.9, 0, 0.7], [0.2, 0, 0.1]]),
        boxes=np.float32([[10, 10, 70, 50], [2, 2, 12, 12]]),
        box_scores=np.float32([0.8, 1]),
        image=np.full((60, 80, 3), 127, np.uint8),
        image_size=(80, 60),
        dataset_meta=META,
    )


def test_it_unpacks_as_keypoints_and_scores(poses):
    keypoints, scores = poses
    assert keypoints is poses.keypoints and scores is poses.scores and len(poses) == 2
    assert [person.box_score for person in poses.persons] == pytest.approx([0.8, 1])
    assert poses.names == ['left_hip', 'pelvis', 'right_hip'] and poses.skeleton == [(0, 2)]
    assert poses.annotated.tolist() == [True, False, True]
    assert repr(poses) == 'Poses(2 persons in 80x60 pixels, mean scores 0.80, 0.15)'


def test_numbers_for_json(poses):
    content = json.loads(json.dumps(poses.to_dict()))
    assert content['image'] is None and content['image_size'] == [80, 60]
    assert content['unannotated_keypoints'] == ['pelvis'] and content['skeleton'] == [[0, 2]]
    person = content['persons'][1]
    assert person['box'] == [2, 2, 12, 12] and person['box_score'] == 1
    assert person['keypoints'][0] == [5.12, 8] and person['keypoint_scores'] == [0.2, 0, 0.1]


def test_a_table_of_what_was_learned(poses, monkeypatch):
    pandas = pytest.importorskip('pandas')
    table = poses.to_df()
    assert isinstance(table, pandas.DataFrame) and len(table) == 4
    assert list(table.columns) == ['person', 'keypoint', 'x', 'y', 'score']
    assert set(table.keypoint) == {'left_hip', 'right_hip'}


def test_without_pandas(poses, monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(InputError, match='pip install pandas'):
        poses.to_df()


@pytest.mark.parametrize('name', ['out.png', 'out.jpg', 'out'])
def test_a_plot_is_an_image_and_perhaps_a_file(poses, tmp_path, name):
    drawn = poses.plot(tmp_path / name)
    assert drawn.size == (80, 60) and Image.open(tmp_path / name).size == (80, 60)
    pixels = np.asarray(drawn).astype(int)
    assert np.abs(pixels[30, 40] - [0, 255, 0]).max() < 60  # the bone past the pelvis
    assert (poses.image == 127).all()
    assert poses._repr_png_().startswith(b'\x89PNG')


def test_the_image_of_a_path_is_read_when_it_is_drawn(tmp_path):
    path = tmp_path / 'a.jpg'
    cv2.imwrite(str(path), np.full((60, 80, 3), 127, np.uint8))
    poses = PoseEstimator(device='cpu')(path, [[5, 5, 70, 50, 0.5]])
    assert poses.image == path and poses.box_scores.tolist() == [0.5]
    assert poses.to_dict()['image'] == str(path) and poses.plot().size == (80, 60)
