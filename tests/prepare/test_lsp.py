import cv2
import numpy as np
import pytest
from scipy.io import savemat

from hg_plugin.datasets import MPIIPoseDataset
from hg_plugin.mpii_format import load_annotations, load_ground_truth, load_head_boxes, save_annotations
from hg_plugin.prepare.head_boxes import write_ground_truth
from hg_plugin.prepare.lsp import prepare_lsp
from hg_plugin.utils.errors import InputError


def lsp(folder, extended, count=6):
    """A folder as it was published. Joint k of person n is at (10 + k, 20 + 2k + n)."""
    k, n = np.meshgrid(np.arange(14.0), np.arange(count))
    joints = np.stack([10 + k, 20 + 2 * k + n, np.full_like(k, extended)], axis=-1)  # (N, 14, 3)
    joints[1, 3, 2] = 1 - extended  # occluded in LSP, not annotated in LSP extended
    joints[4, 13, 2] = 1 - extended
    (folder / 'images').mkdir(parents=True)
    for index in range(count):
        cv2.imwrite(str(folder / f'images/im{index + 1:04}.jpg'), np.zeros((80, 60, 3), np.uint8))
    savemat(folder / 'joints.mat', dict(joints=joints.transpose((1, 2, 0) if extended else (2, 1, 0))))
    return joints


def test_lsp_keeps_its_published_split_and_its_occluded_joints(tmp_path):
    joints = lsp(tmp_path, extended=False)
    assert prepare_lsp(tmp_path) == dict(train=3, val=3)
    train, val = (load_annotations(tmp_path / f'annotations/mpii_{split}.json') for split in ('train', 'val'))
    assert train['image'] == ['im0001.jpg', 'im0002.jpg', 'im0003.jpg'] and val['image'][0] == 'im0004.jpg'
    for set_ in (train, val):
        assert set_['visible'].sum(axis=1).tolist() == [14] * 3 and not set_['visible'][:, 6:8].any()
    # right ankle, right wrist, right shoulder, left wrist, neck and head top
    assert np.array_equal(train['joints'][1, [0, 10, 12, 15, 8, 9]], joints[1, [0, 6, 8, 11, 12, 13], :2] - 1)
    low, high = joints[1, :, :2].min(axis=0) - 1, joints[1, :, :2].max(axis=0) - 1
    assert np.allclose(train['center'][1], (low + high) / 2)
    assert train['scale'][1] == pytest.approx(1.1 * (high - low).max() / 200, abs=1e-5)


def test_lsp_extended_sets_persons_with_a_head_aside(tmp_path):
    joints = lsp(tmp_path, extended=True)
    assert prepare_lsp(tmp_path, num_val=3) == dict(train=3, val=3)
    train, val = (load_annotations(tmp_path / f'annotations/mpii_{split}.json') for split in ('train', 'val'))
    assert val['image'] == ['im0001.jpg', 'im0003.jpg', 'im0006.jpg']
    assert train['image'] == ['im0002.jpg', 'im0004.jpg', 'im0005.jpg']
    assert not train['visible'][0, 3] and not train['visible'][2, 9] and train['visible'][1].sum() == 14
    truth = load_ground_truth(tmp_path / 'annotations/mpii_gt_val.mat')
    assert np.array_equal(truth['gt'][truth['visible']], val['joints'][val['visible']])
    assert np.allclose(truth['head_size'], np.linalg.norm(joints[0, 13] - joints[0, 12]))
    root = str(tmp_path)
    files = dict(ann_file='annotations/mpii_val.json', headbox_file='annotations/mpii_gt_val.mat')
    assert len(MPIIPoseDataset(**files, data_root=root, test_mode=True)) == 3


def test_lsp_folders_that_are_not_whole(tmp_path):
    with pytest.raises(InputError, match='does not exist'):
        prepare_lsp(tmp_path)
    lsp(tmp_path, extended=True)
    (tmp_path / 'images/im0002.jpg').unlink()
    with pytest.raises(InputError, match='5 .jpg images.* 6 persons'):
        prepare_lsp(tmp_path)
    savemat(tmp_path / 'joints.mat', dict(joints=np.zeros((16, 3, 5))))
    with pytest.raises(InputError, match=r'shape \(16, 3, 5\)'):
        prepare_lsp(tmp_path)


def test_the_ground_truth_of_ones_own_dataset(tmp_path, edit):
    names = ['chin', 'top', 'tail']
    joints = np.array([[[10, 50], [10, 20], [90, 90]], [[30, 30], [70, 60], [1, 2]]], float)
    columns = dict(image=['a.jpg', 'b.jpg'], center=joints[:, 0], scale=np.ones(2), joints=joints)
    save_annotations(tmp_path / 'own.json', dict(columns, visible=np.array([[1, 1, 0], [1, 1, 1]], bool)))
    path = tmp_path / 'gt.mat'
    write_ground_truth(tmp_path / 'own.json', path, names=names, head=('chin', 'top'))
    truth = load_ground_truth(path)
    assert np.allclose(truth['head_size'], [30, 50]) and truth['visible'].tolist()[0] == [True, True, False]
    assert np.array_equal(truth['gt'][1], joints[1])
    low, high = load_head_boxes(path).swapaxes(0, 1)
    assert (low <= high).all() and np.allclose((low + high) / 2, joints[:, :2].mean(axis=1))

    boxes = np.array([[[0, 0], [30, 40]], [[5, 5], [8, 9]]], float)
    write_ground_truth(tmp_path / 'own.json', path, names=names, head_boxes=boxes)
    assert np.allclose(load_ground_truth(path)['head_size'], [30, 3])

    with edit(tmp_path / 'own.json') as entries:
        entries[1]['joints_vis'][1] = 0
    with pytest.raises(InputError, match='annotation 1: chin and top are not both annotated'):
        write_ground_truth(tmp_path / 'own.json', path, names=names, head=('chin', 'top'))
