import json
import shutil

import cv2
import numpy as np
import pytest

from hg_plugin.training.data_check import _check_person

CONFIG = 'configs/hg_2stack_synthetic.py'
TOOL = 'hg_plugin/__main__.py', 'check'


@pytest.fixture
def persons(synthetic, tmp_path):
    return shutil.copytree(synthetic(12, 3), tmp_path / 'persons')


@pytest.fixture
def check(persons, tmp_path, tool):
    """Runs the tool and returns the exit code and what it found, by kind and annotation."""

    def check(workers=1):
        out = tmp_path / 'found.json'
        code, _ = tool(*TOOL, CONFIG, '--data-root', persons, '--out', out, '--workers', workers)
        findings = json.loads(out.read_text())['findings']
        return code, {(finding['kind'], finding['annotation']): finding for finding in findings}

    return check


@pytest.fixture
def change(persons, edit):
    """Changes entries of the training set's annotations: ``{3: dict(scale=1)}``. Returns all of them."""

    def change(changes=()):
        with edit(persons / 'annotations/mpii_train.json') as entries:
            for number, values in dict(changes).items():
                entries[number].update(values)
        return entries

    return change


def test_nothing_is_wrong_with_good_data_nor_with_a_test_set_without_joints(check, persons, edit):
    assert check() == (0, {})
    with edit(persons / 'annotations/mpii_val.json') as entries:
        for entry in entries:
            del entry['joints'], entry['joints_vis']
    code, found = check()
    assert not [key for key in found if key[0] == 'annotation'], found


def test_every_bad_image_is_found_by_two_processes(check, persons, change, damages):
    paths = [persons / 'images' / entry['image'] for entry in change()]
    whole = paths[0].read_bytes()
    half = len(whole) // 2
    for damage, path in zip(damages.values(), paths):
        damage(path)
    paths[8].write_bytes(whole[: half - 2000] + bytes(2000) + whole[half:])
    cv2.imwrite(str(paths[7]), np.zeros((4, 4, 3), np.uint8))
    code, found = check(workers=2)
    problems = {number: finding['problem'] for (kind, number), finding in found.items() if kind == 'image'}
    assert code == 1 and problems.keys() == set(range(9))
    assert 'Corrupt JPEG data' in problems[8] and 'pipe' in problems[0] and '4x4 pixels' in problems[7]


def test_wrong_annotations_are_all_listed(check, change):
    visible = dict(joints_vis=[1e6, 255, -1, *[1] * 13])
    change({1: dict(scale=1e-9), 2: dict(joints=[[1, 2]]), 4: dict(joints_vis=[0] * 16), 5: visible})
    code, found = check()
    assert code == 1 and {number for kind, number in found if kind == 'annotation'} == {1, 2, 4, 5}
    assert '-1, 255, 1000000.0' in found['annotation', 5]['problem'] and not found['annotation', 5]['bad']


def test_suspicious_data_alone_is_no_error(check, change):
    change({5: dict(joints_vis=[2] * 16)})
    code, found = check()
    assert code == 0 and list(found) == [('annotation', 5)]


def test_joints_and_boxes_where_they_cannot_be_are_found(check, change):
    people = [person['joints'] for person in change()]
    joints = {
        2: [[-500, -500], *people[2][1:]],
        3: [[2000, 10]] * 16,
        4: [[x / 320, y / 240] for x, y in people[4]],
        5: [[1, 1]] * 16,
    }
    change({number: dict(joints=points, joints_vis=[1] * 16) for number, points in joints.items()})
    change({1: dict(center=[9000, 50]), 6: dict(joints=[[people[6][0][0], 1e4], *people[6][1:]])})
    code, found = check()
    assert code == 1 and found.keys() == {('box', 1), *(('joints', number) for number in range(1, 7))}
    assert [found['joints', number]['bad'] for number in range(2, 7)] == [False, True, True, True, False]
    assert 'in one spot' in found['joints', 4]['problem'] and 'far outside' in found['joints', 6]['problem']


@pytest.mark.parametrize('annotated, bad', [(0, False), (1, True)])
def test_joints_that_are_nan_are_counted(annotated, bad):
    joints = np.array([[[np.nan, np.nan], [30, 40]]])
    person = dict(bbox=[[0, 0, 64, 64]], keypoints=joints, keypoints_visible=[[annotated, 1]])
    ((_, problem, is_bad),) = _check_person(person, 64, 64)
    assert is_bad == bad and f'1 joints, {annotated} of them annotated, are NaN' in problem
