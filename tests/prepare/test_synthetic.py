import json
import multiprocessing
import os
import signal

import cv2
import numpy as np
import pytest

from hg_plugin.mpii_format import JOINTS, load_annotations, load_ground_truth, load_head_boxes
from hg_plugin.prepare import synthetic
from hg_plugin.prepare.synthetic import FIRST_VAL, draw_image, make_synthetic
from hg_plugin.prepare.synthetic_person import LIMBS, PATCH
from hg_plugin.utils.errors import InputError

SMALL = dict(num_train=3, num_val=2, image_size=(96, 80), num_workers=1)
CLEAN = dict(occluded=0, truncated=0, companions=0)
TOOL = 'hg_plugin/__main__.py', 'make_synthetic'


def contents(folder):
    """Every file below a folder with its bytes, but for the .mat, whose header has the time of writing."""
    return {
        str(path.relative_to(folder)): b'' if path.suffix == '.mat' else path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def annotations(folder, split):
    return json.loads((folder / 'annotations' / f'mpii_{split}.json').read_text())


def draw_images(seed, count, size=(320, 240), **options):
    return [draw_image(np.random.default_rng([seed, index]), size, **options) for index in range(count)]


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp('synthetic') / 'set'
    assert make_synthetic(folder, num_train=6, num_val=12, image_size=(160, 120), truncated=1, num_workers=1)
    return folder


def test_layout(made):
    train, val = annotations(made, 'train'), annotations(made, 'val')
    assert [person['image'] for person in train] == [f'{index:09d}.jpg' for index in range(1, 7)]
    assert [person['image'] for person in val] == [f'{FIRST_VAL + index:09d}.jpg' for index in range(12)]
    files = 'mpii_train.json', 'mpii_val.json', 'mpii_gt_val.mat', 'synthetic.json'
    images = {f'images/{person["image"]}' for person in train + val}
    assert set(contents(made)) == images | {f'annotations/{name}' for name in files}
    for person in train + val:
        assert cv2.imread(str(made / 'images' / person['image'])).shape == (120, 160, 3)
        assert set(person) == {'image', 'center', 'scale', 'joints', 'joints_vis'}


def test_files_hold_what_was_drawn(made):
    val = load_annotations(made / 'annotations/mpii_val.json')
    truth = load_ground_truth(made / 'annotations/mpii_gt_val.mat')
    head_boxes = load_head_boxes(made / 'annotations/mpii_gt_val.mat')
    assert 0 < (~val['visible']).sum() < val['visible'].size / 2
    for index in range(12):
        _, person = draw_image(np.random.default_rng([0, FIRST_VAL + index]), (160, 120), truncated=1)
        visible = person['visible']
        for found, joints in ((val['visible'], val['joints']), (truth['visible'], truth['gt'])):
            np.testing.assert_array_equal(found[index], visible)
            np.testing.assert_allclose(joints[index, visible], person['joints'][visible], atol=1e-3)
        np.testing.assert_allclose(val['center'][index], person['center'], atol=1e-3)
        np.testing.assert_allclose(head_boxes[index], person['head_box'])


def test_joints_are_where_they_are_drawn(tmp_path, monkeypatch):
    """Changes the color of a limb and compares the place where two files differ with the joints."""
    look = {name: np.full((*PATCH, 3), 120, np.uint8) for name in ('torso', 'front', 'skin', 'hair', 'shoe')}
    look.update({limb[:2]: look['torso'] for limb in LIMBS})

    def make(name, look):
        monkeypatch.setattr(synthetic, 'random_look', lambda rng: look)
        make_synthetic(tmp_path / name, num_train=10, num_val=1, seed=5, num_workers=1, **CLEAN)
        persons = annotations(tmp_path / name, 'train')
        grey = [cv2.imread(str(tmp_path / name / 'images' / person['image']), 0) for person in persons]
        joints, scales = ([person[key] for person in persons] for key in ('joints', 'scale'))
        return np.array(grey, float), np.array(joints), np.array(scales) * 200

    before, joints, stature = make('before', look)
    x, y = np.meshgrid(np.arange(1, 321), np.arange(1, 241))  # of pixel centres, 1-based
    normals, offsets = [], []
    for start, end, *radii in LIMBS:
        after, *_ = make(end, {**look, (start, end): np.full((*PATCH, 3), 250, np.uint8)})
        for number, change in enumerate(np.abs(after - before)):
            change[change < 15] = 0  # what JPEG makes of it elsewhere
            a, b = joints[number, [JOINTS.index(start), JOINTS.index(end)]]
            length = np.hypot(*(b - a))
            whole = 120 * length * sum(radii) * stature[number]
            if length < 15 or change.sum() < 0.75 * whole:  # seen end on, or behind another part
                continue
            centroid = np.array([(change * x).sum(), (change * y).sum()]) / change.sum()
            normal = np.array([b[1] - a[1], a[0] - b[0]]) / length
            normals.append(normal)
            offsets.append(normal @ (centroid - (a + b) / 2))
    assert len(offsets) > 30
    shift = np.linalg.lstsq(np.array(normals), np.array(offsets), rcond=None)[0]
    assert np.abs(shift).max() < 0.25
    assert np.median(np.abs(offsets)) < 0.5


def test_turned_backs_swap_the_sides_of_the_picture():
    def right_is_on_the_left(from_behind):
        joints = np.array([person['joints'] for _, person in draw_images(2, 40, from_behind=from_behind)])
        return np.mean(joints[:, JOINTS.index('rsho'), 0] < joints[:, JOINTS.index('lsho'), 0])

    assert right_is_on_the_left(0) > 0.85
    assert right_is_on_the_left(1) < 0.15


@pytest.mark.parametrize('option', ['occluded', 'companions'])
def test_what_hides_a_person_changes_no_annotation(option):
    free, hidden = (draw_images(3, 10, **{option: share}) for share in (0, 1))
    for (image, person), (other_image, other_person) in zip(free, hidden):
        assert (image != other_image).any()
        np.testing.assert_array_equal(person['joints'], other_person['joints'])
        np.testing.assert_array_equal(person['visible'], other_person['visible'])


@pytest.mark.parametrize('size', [(64, 64), (320, 240), (90, 400)])
def test_joints_outside_are_not_visible_and_the_head_is_inside(size):
    persons = [person for _, person in draw_images(6, 30, size, truncated=1)]
    joints, visible = (np.array([person[name] for person in persons]) for name in ('joints', 'visible'))
    inside = ((joints >= 0) & (joints <= np.array(size) - 1)).all(2)
    np.testing.assert_array_equal(visible, inside)
    assert (~visible).any()
    assert visible[:, JOINTS.index('head')].all() and visible[:, JOINTS.index('neck')].all()
    assert np.concatenate([person['visible'] for _, person in draw_images(6, 30, size, truncated=0)]).all()


def test_scale_and_head_size_are_those_of_mpii():
    persons = [person for _, person in draw_images(7, 60, **CLEAN)]
    joints = dict(zip(JOINTS, np.stack([person['joints'] for person in persons], axis=1)))
    head_segment = np.linalg.norm(joints['head'] - joints['neck'], axis=1)
    head_boxes = np.array([person['head_box'] for person in persons])
    head_size = 0.6 * np.linalg.norm(head_boxes[:, 1] - head_boxes[:, 0], axis=1)
    # the medians over MPII's own validation persons are 0.75 and 1/6
    assert np.median(head_size / head_segment) == pytest.approx(0.75, abs=0.03)
    stature = [person['scale'] * 200 for person in persons]
    assert np.median(head_segment / stature) == pytest.approx(1 / 6, abs=0.015)
    np.testing.assert_allclose(head_boxes.mean(1), (joints['head'] + joints['neck']) / 2)
    np.testing.assert_allclose(joints['pelv'], (joints['rhip'] + joints['lhip']) / 2)
    np.testing.assert_allclose(joints['thor'], (joints['rsho'] + joints['lsho']) / 2)
    for person in persons:  # a loader crops 1.25 statures around a centre moved down by 15 * scale
        middle = person['center'] + (0, 15 * person['scale'])
        assert (np.abs(person['joints'] - middle) <= 125 * person['scale']).all()


def test_images_depend_on_seed_and_number_and_not_on_workers(tmp_path):
    make_synthetic(tmp_path / 'few', **SMALL)
    make_synthetic(tmp_path / 'more', **SMALL | dict(num_train=5, num_workers=2))
    make_synthetic(tmp_path / 'other', **SMALL, seed=1)
    few, more, other = (contents(tmp_path / name) for name in ('few', 'more', 'other'))
    names = [name for name in few if name.startswith('images')]
    assert all(few[name] == more[name] and few[name] != other[name] for name in names)
    assert len({few[name] for name in names}) == len(names) == 5  # no image is in both splits
    assert annotations(tmp_path / 'few', 'train') == annotations(tmp_path / 'more', 'train')[:3]
    assert annotations(tmp_path / 'few', 'val') == annotations(tmp_path / 'more', 'val')


def test_complete_set_is_reused(tmp_path, monkeypatch):
    make_synthetic(tmp_path, **SMALL)
    monkeypatch.setattr(synthetic, 'draw_image', lambda *args, **kwargs: pytest.fail('drawn again'))
    assert make_synthetic(tmp_path, **SMALL) is False
    assert make_synthetic(str(tmp_path), **{**SMALL, 'num_workers': 2}) is False


def test_other_settings_and_foreign_files_are_refused(tmp_path):
    make_synthetic(tmp_path / 'set', **SMALL)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.txt').write_text('years of work')
    before = contents(tmp_path)
    for name in ('set', 'mine'):
        with pytest.raises(InputError, match='not empty'):
            make_synthetic(tmp_path / name, **SMALL, seed=3)
    assert contents(tmp_path) == before


def test_killed_run_is_not_taken_for_complete(tmp_path, monkeypatch):
    def draw_three(*args, **kwargs):
        if len(list(tmp_path.rglob('*.jpg'))) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return draw_image(*args, **kwargs)

    monkeypatch.setattr(synthetic, 'draw_image', draw_three)
    fork = multiprocessing.get_context('fork')
    process = fork.Process(target=make_synthetic, args=(tmp_path / 'set',), kwargs=SMALL)
    process.start()
    process.join()
    monkeypatch.undo()
    assert len(list(tmp_path.rglob('*.jpg'))) == 3 and not list(tmp_path.rglob('mpii_*'))
    assert make_synthetic(tmp_path / 'set', **SMALL)
    make_synthetic(tmp_path / 'fresh', **SMALL)
    assert contents(tmp_path / 'set') == contents(tmp_path / 'fresh')


@pytest.mark.parametrize(
    'change, message',
    [(dict(num_train=-1), '-1 training'), (dict(image_size=(96, 20)), '64x64')],
)
def test_bad_arguments(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        make_synthetic(tmp_path / 'set', **{**SMALL, **change})
    assert not (tmp_path / 'set').exists()


def test_command_line(tmp_path, tool):
    options = [tmp_path / 'set', '--train', 2, '--val', 1, '--size', 80, 64, '--workers', 1]
    code, printed = tool(*TOOL, *options)
    assert code == 0 and '2 training and 1 validation images made' in printed and '3/3 images' in printed
    assert tool(*TOOL, *options, '--seed', 4)[0].startswith('error: ')
    assert cv2.imread(str(tmp_path / 'set/images/000000001.jpg')).shape == (64, 80, 3)
