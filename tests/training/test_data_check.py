import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from hg_plugin.prepare.synthetic import make_synthetic
from hg_plugin.training.data_check import _check_person

CONFIG = 'configs/hg_2stack_synthetic.py'
TOOL = Path(__file__).parents[2] / 'tools/check.py'


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp('synthetic')
    make_synthetic(folder, num_train=12, num_val=3, seed=0, num_workers=1)
    return folder


@pytest.fixture
def persons(good, tmp_path):
    return shutil.copytree(good, tmp_path / 'persons')


@pytest.fixture
def check(persons, tmp_path, mistake, capsys):
    """Runs the tool and returns the exit code and what it found, by kind and annotation."""

    def check(workers=1):
        out = tmp_path / 'found.json'
        code = mistake(TOOL, CONFIG, '--data-root', persons, '--out', out, '--workers', workers)
        findings = json.loads(out.read_text())['findings']
        return code, {(finding['kind'], finding['annotation']): finding for finding in findings}

    return check


def edit(persons, **changes):
    """Change entries of the training set: ``person3=dict(scale=1)``."""
    path = persons / 'annotations/mpii_train.json'
    annotations = json.loads(path.read_text())
    for person, values in changes.items():
        annotations[int(person.removeprefix('person'))].update(values)
    path.write_text(json.dumps(annotations))


def images(persons):
    annotations = json.loads((persons / 'annotations/mpii_train.json').read_text())
    return [persons / 'images' / annotation['image'] for annotation in annotations]


def test_nothing_is_wrong_with_good_data(check):
    assert check() == (0, {})


def test_every_bad_image_is_found_by_two_processes(check, persons):
    paths = images(persons)
    whole = paths[0].read_bytes()
    paths[0].write_bytes(whole[: len(whole) // 2])
    paths[1].write_bytes(b'')
    paths[2].unlink()
    paths[3].write_text('<!DOCTYPE html><html><body>404</body></html>')
    half = len(whole) // 2
    paths[4].write_bytes(whole[: half - 2000] + bytes(2000) + whole[half:])
    paths[5].unlink()
    os.mkfifo(paths[5])
    paths[6].unlink()
    paths[6].mkdir()
    cv2.imwrite(str(paths[7]), np.zeros((4, 4, 3), np.uint8))
    code, found = check(workers=2)
    assert code == 1
    assert {number for kind, number in found if kind == 'image'} == set(range(8))
    problems = {number: finding['problem'] for (kind, number), finding in found.items() if kind == 'image'}
    assert 'Corrupt JPEG data' in problems[4] and 'pipe' in problems[5] and '4x4 pixels' in problems[7]


def test_wrong_annotations_are_all_listed(check, persons):
    edit(
        persons,
        person1=dict(scale=1e-9),
        person2=dict(joints=[[1, 2]]),
        person4=dict(joints_vis=[0] * 16),
        person5=dict(joints_vis=[1e6, 255, -1, *[1] * 13]),
    )
    code, found = check()
    assert code == 1 and {number for kind, number in found if kind == 'annotation'} == {1, 2, 4, 5}
    assert '-1, 255, 1000000.0' in found['annotation', 5]['problem'] and not found['annotation', 5]['bad']


def test_persons_outside_of_their_images_are_found(check, persons):
    joints = json.loads((persons / 'annotations/mpii_train.json').read_text())[2]['joints']
    edit(
        persons,
        person1=dict(center=[9000, 50]),
        person2=dict(joints=[[-500, -500], *joints[1:]], joints_vis=[1] * 16),
        person3=dict(joints=[[2000, 10]] * 16, joints_vis=[1] * 16),
    )
    code, found = check()
    assert code == 1 and found.keys() == {('box', 1), ('joints', 1), ('joints', 2), ('joints', 3)}
    assert [found['joints', number]['bad'] for number in (2, 3)] == [False, True]


def test_joints_that_do_not_fit_their_box_are_found(check, persons):
    people = json.loads((persons / 'annotations/mpii_train.json').read_text())
    shares = [[x / 320, y / 240] for x, y in people[1]['joints']]
    seen = dict(joints_vis=[1] * 16)
    one_far = [[people[3]['center'][0], 1e4], *people[3]['joints'][1:]]
    edit(
        persons,
        person1=dict(joints=shares, **seen),
        person2=dict(joints=[[1, 1]] * 16, **seen),
        person3=dict(joints=one_far, **seen),
    )
    code, found = check()
    assert code == 1 and {number for kind, number in found} == {1, 2, 3}
    assert [found['joints', number]['bad'] for number in (1, 2, 3)] == [True, True, False]
    assert 'in one spot' in found['joints', 1]['problem'] and 'far outside' in found['joints', 3]['problem']


def test_a_test_set_without_joints_passes(check, persons):
    path = persons / 'annotations/mpii_val.json'
    annotations = [
        {key: entry[key] for key in ('image', 'center', 'scale')} for entry in json.loads(path.read_text())
    ]
    path.write_text(json.dumps(annotations))
    code, found = check()
    assert not [key for key in found if key[0] == 'annotation'], found


def test_suspicious_data_alone_is_no_error(check, persons):
    edit(persons, person5=dict(joints_vis=[2] * 16))
    code, found = check()
    assert code == 0 and list(found) == [('annotation', 5)]


@pytest.mark.parametrize('annotated, bad', [(0, False), (1, True)])
def test_joints_that_are_nan_are_counted(annotated, bad):
    joints = np.array([[[np.nan, np.nan], [30, 40]]])
    person = dict(index=3, img_path='a.jpg', bbox=None, keypoints=joints, keypoints_visible=[[annotated, 1]])
    (finding,) = _check_person('a.json', person, 64, 64)
    assert finding.bad == bad and f'1 joints, {annotated} of them annotated, are NaN' in finding.problem
