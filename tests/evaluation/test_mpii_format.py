import sys

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from hg_plugin.evaluation import load_ground_truth, load_predictions, save_predictions
from hg_plugin.utils.errors import InputError

PRED = np.random.RandomState(0).uniform(-5, 600, (7, 16, 2)).astype(np.float32)


def write_mat_v73(path, **arrays):
    """What MATLAB's `save -v7.3` leaves: HDF5 behind a header, with the axes reversed."""
    h5py = pytest.importorskip('h5py', reason='h5py is not installed')
    with h5py.File(path, 'w', userblock_size=512) as file:
        for name, array in arrays.items():
            file[name] = array.T
    with open(path, 'r+b') as file:
        file.write(b'MATLAB 7.3 MAT-file'.ljust(116) + bytes(8) + b'\x00\x02IM')


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
def test_transposed_files_are_put_right(tmp_path, axes):
    savemat(tmp_path / 'pred.mat', dict(preds=PRED.transpose(axes) + 1))
    np.testing.assert_array_equal(load_predictions(tmp_path / 'pred.mat', 7), PRED + np.float32(1) - 1.0)


def test_sixteen_persons_are_not_mistaken_for_joints(tmp_path):
    pred = np.random.RandomState(1).rand(16, 16, 2)
    for axes in ((0, 1, 2), (1, 2, 0), (2, 1, 0)):
        np.savez(tmp_path / 'pred.npz', preds=pred.transpose(axes) + 1)
        np.testing.assert_allclose(load_predictions(tmp_path / 'pred.npz', 16), pred)


@pytest.mark.parametrize(
    'shape, persons', [((6, 16, 2), 7), ((7, 17, 2), 7), ((7, 2, 16), 7), ((7, 32), 7), ((2, 16, 2), 2)]
)
def test_other_shapes_are_named(tmp_path, shape, persons):
    np.savez(tmp_path / 'pred.npz', preds=np.ones(shape))
    with pytest.raises(InputError) as error:
        load_predictions(tmp_path / 'pred.npz', persons)
    assert f'pred.npz: preds has shape {shape}' in str(error.value) and f'{persons} persons' in str(
        error.value
    )


def test_h5_is_read(tmp_path):
    h5py = pytest.importorskip('h5py', reason='h5py is not installed')
    with h5py.File(tmp_path / 'pred.h5', 'w') as file:
        file['preds'] = PRED + 1
    np.testing.assert_array_equal(load_predictions(tmp_path / 'pred.h5', 7), PRED + np.float32(1) - 1.0)


@pytest.mark.parametrize('axes', [(0, 1, 2), (1, 2, 0)])
def test_mat_version_7_3_is_read(tmp_path, axes):
    write_mat_v73(tmp_path / 'pred.mat', preds=PRED.transpose(axes) + 1)
    with pytest.raises(NotImplementedError):  # or the file is none of version 7.3
        loadmat(tmp_path / 'pred.mat')
    np.testing.assert_array_equal(load_predictions(tmp_path / 'pred.mat', 7), PRED + np.float32(1) - 1.0)


@pytest.mark.parametrize('name', ['pred.h5', 'pred.mat'])
def test_without_h5py_the_package_is_named(tmp_path, monkeypatch, name):
    # for .mat the header alone shows the version
    (tmp_path / name).write_bytes(b'MATLAB 7.3 MAT-file'.ljust(116) + bytes(8) + b'\x00\x02IM')
    monkeypatch.setitem(sys.modules, 'h5py', None)
    with pytest.raises(InputError, match=f'{name} is an HDF5 file, .* pip install h5py'):
        load_predictions(tmp_path / name, 7)


def test_predictions_that_are_not_finite_are_refused_by_row(tmp_path):
    pred = PRED.copy()
    pred[3, 5, 0], pred[6, 0, 1] = np.nan, np.inf
    save_predictions(tmp_path / 'pred.mat', pred)
    with pytest.raises(InputError, match='2 persons are not finite, the first in row 3'):
        load_predictions(tmp_path / 'pred.mat', 7)


@pytest.mark.parametrize('suffix', ['.npz', '.mat', '.h5'])
@pytest.mark.parametrize('content', [b'', b'not such a file', b'PK\x03\x04 cut off'])
def test_a_broken_file_is_one_sentence(tmp_path, suffix, content):
    if suffix == '.h5':
        pytest.importorskip('h5py', reason='h5py is not installed')
    (tmp_path / f'pred{suffix}').write_bytes(content)
    with pytest.raises(InputError, match=f'pred{suffix} cannot be read'):
        load_predictions(tmp_path / f'pred{suffix}', 7)


@pytest.mark.parametrize('suffix', ['.npz', '.mat'])
def test_a_file_that_was_cut_off_is_one_sentence(tmp_path, suffix):
    path = tmp_path / f'pred{suffix}'
    save_predictions(path, PRED)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match='cannot be read'):
        load_predictions(path, 7)


def test_other_mistakes_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match='there is no file .*absent.npz'):
        load_predictions(tmp_path / 'absent.npz', 7)
    with pytest.raises(InputError, match='pred.json is none of .npz, .mat'):
        load_predictions(tmp_path / 'pred.json', 7)
    np.savez(tmp_path / 'pred.npz', keypoints=PRED)
    with pytest.raises(InputError, match='no array called preds'):
        load_predictions(tmp_path / 'pred.npz', 7)
    savemat(tmp_path / 'pred.mat', dict(preds='words'))
    with pytest.raises(InputError, match='preds is no array of real numbers'):
        load_predictions(tmp_path / 'pred.mat', 7)


def test_writing_refuses_another_extension(tmp_path):
    with pytest.raises(InputError, match='.npz or .mat'):
        save_predictions(tmp_path / 'pred.json', PRED)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / 'pred.npz'
    save_predictions(path, PRED)
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b'half')
        raise RuntimeError

    monkeypatch.setitem(save_predictions.__globals__['WRITERS'], '.npz', fail)
    with pytest.raises(RuntimeError):
        save_predictions(path, PRED + 1)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match='cannot be written'):
        save_predictions(tmp_path / 'file' / 'pred.npz', PRED)


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


def test_ground_truth_of_mpii(mpii_annotations):
    truth = load_ground_truth(mpii_annotations / 'mpii_gt_val.mat')
    assert truth['gt'].shape == (2958, 16, 2) and truth['visible'].sum() == 44240
    assert truth['head_size'].min() == pytest.approx(14.524463)


@pytest.mark.parametrize(
    'name, array, sentence',
    [
        ('jnt_missing', np.zeros((3, 16)), r'not \(16, 2, 3\), \(3, 16\) and'),
        ('headboxes_src', np.zeros((2, 2, 3)), 'column 0 of headboxes_src'),
        ('pos_gt_src', None, 'no array called pos_gt_src'),
    ],
)
def test_a_wrong_ground_truth_is_one_sentence(tmp_path, name, array, sentence):
    arrays = ground_truth()
    arrays.pop(name)
    savemat(tmp_path / 'gt.mat', arrays if array is None else {**arrays, name: array})
    with pytest.raises(InputError, match=sentence):
        load_ground_truth(tmp_path / 'gt.mat')
