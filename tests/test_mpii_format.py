import json
import re
import sys

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from hg_plugin.mpii_format import (
    JOINTS,
    load_annotations,
    load_ground_truth,
    load_head_boxes,
    load_predictions,
    save_annotations,
    save_ground_truth,
    save_predictions,
)
from hg_plugin.utils.errors import InputError

PRED = np.random.RandomState(0).uniform(-5, 600, (7, 16, 2)).astype(np.float32)


FROM_ONE = PRED + np.float32(1) - 1.0  # what is left of it after 1 was added in float32
MAT_V73 = b'MATLAB 7.3 MAT-file'.ljust(116) + bytes(8) + b'\x00\x02IM'  # the header, before HDF5


@pytest.mark.parametrize('suffix', ['.npz', '.mat'])
def test_files_count_from_one_and_come_back_exactly(tmp_path, suffix):
    path = tmp_path / 'new' / 'folder' / f'pred{suffix}'
    save_predictions(path, PRED)
    stored = (loadmat if suffix == '.mat' else np.load)(path)['preds']
    assert stored.shape == (7, 16, 2) and stored.dtype == np.float64
    np.testing.assert_array_equal(stored, PRED.astype(np.float64) + 1)
    np.testing.assert_array_equal(load_predictions(path, 7), PRED)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize('axes', [(0, 1, 2), (1, 2, 0), (2, 1, 0)])
@pytest.mark.parametrize('persons', [7, 16])  # 16 persons are not mistaken for joints
def test_transposed_files_are_put_right(tmp_path, axes, persons):
    pred = np.random.RandomState(1).rand(persons, 16, 2)
    savemat(tmp_path / 'pred.mat', dict(preds=pred.transpose(axes) + 1))
    np.testing.assert_allclose(load_predictions(tmp_path / 'pred.mat', persons), pred)


@pytest.mark.parametrize('shape', [(6, 16, 2), (7, 17, 2), (7, 2, 16), (7, 32)])
def test_other_shapes_are_named(tmp_path, shape):
    np.savez(tmp_path / 'pred.npz', preds=np.ones(shape))
    with pytest.raises(InputError, match=re.escape(str(shape))):
        load_predictions(tmp_path / 'pred.npz', 7)


@pytest.mark.parametrize('suffix', ['.h5', '.mat'])
def test_hdf5_is_read(tmp_path, suffix):
    """Also what MATLAB's ``save -v7.3`` leaves: behind a header, and with the axes reversed."""
    h5py, path = pytest.importorskip('h5py'), tmp_path / f'pred{suffix}'
    with h5py.File(path, 'w', userblock_size=512) as file:
        file['preds'] = PRED + 1 if suffix == '.h5' else (PRED + 1).T
    if suffix == '.mat':
        with open(path, 'r+b') as file:
            file.write(MAT_V73)
        with pytest.raises(NotImplementedError):  # or the file is none of version 7.3
            loadmat(path)
    np.testing.assert_array_equal(load_predictions(path, 7), FROM_ONE)


@pytest.mark.parametrize('name', ['pred.h5', 'pred.mat'])
def test_without_h5py_the_package_is_named(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(MAT_V73)
    monkeypatch.setitem(sys.modules, 'h5py', None)
    with pytest.raises(InputError, match='pip install h5py'):
        load_predictions(tmp_path / name, 7)


def test_other_mistakes_are_one_sentence(tmp_path):
    np.savez(tmp_path / 'keypoints.npz', keypoints=PRED)
    savemat(tmp_path / 'words.mat', dict(preds='words'))
    for name, message in (
        ('absent.npz', 'does not exist'),
        ('pred.json', '.npz or .mat or .h5'),
        ('keypoints.npz', 'no array called preds'),
        ('words.mat', 'real numbers'),
    ):
        with pytest.raises(InputError, match=message):
            load_predictions(tmp_path / name, 7)
    with pytest.raises(InputError, match='.npz or .mat'):
        save_predictions(tmp_path / 'pred.json', PRED)


def ground_truth(num_persons=3):
    boxes = np.zeros((2, 2, num_persons))
    boxes[1] = [[30.0], [40.0]]
    missing = np.zeros((16, num_persons), np.uint8)
    missing[6, 0] = 1
    joints = np.arange(32.0 * num_persons).reshape(16, 2, num_persons)
    return dict(pos_gt_src=joints, jnt_missing=missing, headboxes_src=boxes)


def test_ground_truth_is_moved_to_the_frame_that_counts_from_zero(tmp_path):
    arrays = ground_truth()
    savemat(tmp_path / 'gt.mat', arrays)
    truth = load_ground_truth(tmp_path / 'gt.mat')
    assert truth['gt'].shape == (3, 16, 2)
    assert truth['gt'][2, 5].tolist() == (arrays['pos_gt_src'][5, :, 2] - 1).tolist()
    assert np.argwhere(~truth['visible']).tolist() == [[0, 6]]
    assert truth['head_size'].tolist() == [30, 30, 30]  # 0.6 * 50


def test_ground_truth_of_mpii(real_data):
    truth = load_ground_truth(real_data('mpii_annotations') / 'mpii_gt_val.mat')
    assert truth['gt'].shape == (2958, 16, 2) and truth['visible'].sum() == 44240
    assert truth['head_size'].min() == pytest.approx(14.524463)


@pytest.mark.parametrize(
    'name, array, sentence',
    [
        ('jnt_missing', np.zeros((3, 16)), r'\(3, 16\)'),
        ('headboxes_src', np.zeros((2, 2, 3)), 'person 0 .*head box'),
        ('headboxes_src', np.full((2, 2, 3), np.inf), 'gt.mat'),
        ('pos_gt_src', np.full((16, 2, 3), np.nan), 'gt.mat'),
        ('jnt_missing', np.full((16, 3), np.nan), 'gt.mat'),
        ('pos_gt_src', None, 'no array called pos_gt_src'),
    ],
)
def test_a_wrong_ground_truth_is_one_sentence(tmp_path, name, array, sentence):
    arrays = ground_truth()
    arrays.pop(name)
    savemat(tmp_path / 'gt.mat', arrays if array is None else {**arrays, name: array})
    with pytest.raises(InputError, match=sentence):
        load_ground_truth(tmp_path / 'gt.mat')


def test_a_ground_truth_that_is_written_comes_back(tmp_path):
    random = np.random.RandomState(2)
    gt, visible = random.randint(0, 600, (5, 16, 2)) / 8, random.rand(5, 16) < 0.8
    boxes = np.cumsum(random.randint(1, 80, (5, 2, 2)), axis=1) / 8
    save_ground_truth(tmp_path / 'gt.mat', gt, visible, boxes)
    truth = load_ground_truth(tmp_path / 'gt.mat')
    np.testing.assert_array_equal(truth['visible'], visible)
    np.testing.assert_array_equal(truth['gt'], np.where(visible[..., None], gt, -1))
    np.testing.assert_allclose(truth['head_size'], 0.6 * np.linalg.norm(boxes[:, 1] - boxes[:, 0], axis=1))
    np.testing.assert_array_equal(load_head_boxes(tmp_path / 'gt.mat'), boxes)
    stored = loadmat(tmp_path / 'gt.mat')
    np.testing.assert_array_equal(stored['headboxes_src'][:, :, 3], boxes[3] + 1)
    assert [str(name[0]) for name in stored['dataset_joints'][0]] == list(JOINTS)


def annotations(num_persons=3):
    joints = np.arange(32.0 * num_persons).reshape(num_persons, 16, 2)
    return dict(
        image=[f'{index}.jpg' for index in range(num_persons)],
        center=joints[:, 7] + 0.5,
        scale=np.arange(1, 1 + num_persons) / 8,
        joints=joints,
        visible=np.arange(16 * num_persons).reshape(num_persons, 16) % 5 != 0,
    )


def test_annotations_count_from_one_and_come_back(tmp_path):
    columns = dict(annotations(), person_index=[4, 0, 2])
    save_annotations(tmp_path / 'ann.json', columns)
    stored = json.loads((tmp_path / 'ann.json').read_text())
    assert list(stored[1]) == ['image', 'center', 'scale', 'joints', 'joints_vis', 'person_index']
    assert stored[1]['center'] == (columns['center'][1] + 1).tolist() and stored[1]['person_index'] == 0
    assert stored[0]['joints'][:2] == [[-1, -1], [3, 4]] and stored[0]['joints_vis'][:2] == [0, 1]
    loaded = load_annotations(tmp_path / 'ann.json')
    assert loaded.keys() == columns.keys() and loaded['visible'].dtype == bool
    columns['joints'][~columns['visible']] = -2
    for key, values in columns.items():
        np.testing.assert_array_equal(loaded[key], values)


def test_a_test_set_without_joints_as_hrnet_gives_it(tmp_path):
    entries = [dict(image='a.jpg', center=[5, 7], scale=1.5), dict(image='b.jpg', center=[1, 2], scale=2)]
    (tmp_path / 'mpii_test.json').write_text(json.dumps(entries), encoding='utf-8-sig')
    loaded = load_annotations(tmp_path / 'mpii_test.json')
    assert loaded.keys() == annotations().keys() and loaded['center'].tolist() == [[4, 6], [0, 1]]
    assert loaded['joints'].shape == (2, 16, 2) and not loaded['visible'].any()


def test_annotations_of_mpii_come_back_as_they_were(real_data, tmp_path):
    path = real_data('mpii_annotations') / 'mpii_val.json'
    save_annotations(tmp_path / 'ann.json', load_annotations(path))
    assert json.loads((tmp_path / 'ann.json').read_text()) == json.loads(path.read_text())


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda entries: entries[2].pop('scale'), '2: lacks scale'),
        (lambda entries: entries[2].update(joints=[[1, 2]] * 15 + [[1]]), '2: joints .* ragged'),
        (lambda entries: entries[1].update(center=[float('nan'), 3]), '1: center holds NaN'),
        (lambda entries: entries[1].update(scale=10**400), '1: scale .* not numeric'),
        (lambda entries: entries.insert(1, 'person'), '1: should be an object'),
        (lambda entries: entries.clear(), 'list of annotations'),
    ],
)
def test_wrong_annotations_name_the_file_and_the_entry(tmp_path, change, message):
    path = tmp_path / 'ann.json'
    save_annotations(path, annotations())
    entries = json.loads(path.read_text())
    change(entries)
    path.write_text(json.dumps(entries))
    with pytest.raises(InputError, match=f'ann.json.* {message}'):
        load_annotations(path)
