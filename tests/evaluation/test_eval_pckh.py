import sys

import numpy as np
import pytest
from matplotlib import image
from scipy.io import savemat

from hg_plugin.evaluation import pckh_curves, pckh_metrics, pckh_table, save_predictions
from hg_plugin.mpii_format import save_ground_truth
from hg_plugin_cli import main


@pytest.fixture
def folder(people, tmp_path):
    """Ground truth of nine persons in MPII's layout, and the predictions of two networks."""
    people = people(9)
    boxes = np.zeros((2, 2, 9))
    boxes[1, 0] = people['head_size'] / 0.6
    truth = dict(pos_gt_src=people['gt'].transpose(1, 2, 0) + 1, jnt_missing=~people['visible'].T)
    savemat(tmp_path / 'gt.mat', dict(truth, headboxes_src=boxes))
    save_predictions(tmp_path / 'good.mat', (people['pred'] + 9 * people['gt']) / 10)
    save_predictions(tmp_path / 'poor.npz', people['pred'])
    return tmp_path


@pytest.fixture
def tool(folder, monkeypatch):
    """Runs the tool in the folder."""

    def run(*arguments):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, 'argv', ['hg_plugin', 'eval_pckh', *arguments])
        main()

    return run


@pytest.mark.parametrize('weights', ['annotations', 'equal'])
def test_tool_prints_a_row_for_each_file_and_draws_them(tool, folder, people, capsys, weights):
    tool('good.mat', 'poor.npz', '--gt', 'gt.mat', '--weights', weights, '--plot', 'curves.PNG')
    people = people(9)
    preds = {'good.mat': (people['pred'] + 9 * people['gt']) / 10, 'poor.npz': people['pred']}
    rows = {
        name: pckh_metrics(pckh_curves(**people | dict(pred=pred), weights=weights))
        for name, pred in preds.items()
    }
    assert capsys.readouterr().out.rstrip('\n') == pckh_table(rows, weights=weights)
    assert rows['good.mat']['Mean'] > rows['poor.npz']['Mean']
    height, width, _ = image.imread(folder / 'curves.PNG').shape
    assert height > 400 and width > 800


def test_tool_ends_with_one_sentence_and_no_table(tool, folder, capsys):
    np.savez(folder / 'short.npz', preds=np.zeros((8, 16, 2)))
    with pytest.raises(SystemExit, match=r'^error: short.npz: .*\(8, 16, 2\)'):
        tool('good.mat', 'short.npz', '--gt', 'gt.mat')
    with pytest.raises(SystemExit, match='^error: curves.txt'):  # before it reads
        tool('none.mat', '--gt', 'none.mat', '--plot', 'curves.txt')
    assert capsys.readouterr().out == '' and not (folder / 'curves.txt').exists()


def test_other_joints_are_named_by_a_metainfo(tool, folder, people, capsys):
    people = people(9)
    names = ['wrist', 'left_finger', 'right_finger']
    info = {i: dict(name=name, id=i, swap='') for i, name in enumerate(names)}
    info[1]['swap'], info[2]['swap'] = names[2], names[1]
    meta = dict(dataset_name='hand', keypoint_info=info, skeleton_info={}, joint_weights=[1] * 3, sigmas=[])
    (folder / 'hand.py').write_text(f'dataset_info = {meta}')
    boxes = np.zeros((9, 2, 2))
    boxes[:, 1, 0] = people['head_size'] / 0.6
    few = {key: people[key][:, :3] for key in ('gt', 'visible')}
    save_ground_truth(folder / 'few.mat', **few, head_boxes=boxes, names=names)
    save_predictions(folder / 'few.npz', people['pred'][:, :3])
    tool('few.npz', '--gt', 'few.mat', '--metainfo', 'hand.py', '--plot', 'few.png')
    columns, row = capsys.readouterr().out.splitlines()[1:]
    assert columns.split() == ['Wrist', 'Finger', 'Mean', 'Mean@0.1', 'AUC'] and len(row.split()) == 6
    assert image.imread(folder / 'few.png').ndim == 3
    with pytest.raises(SystemExit, match='few.mat has 3 joints.*--metainfo'):
        tool('few.npz', '--gt', 'few.mat')
