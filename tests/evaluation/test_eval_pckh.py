import re

import numpy as np
import pytest
from matplotlib import image
from scipy.io import savemat

from hg_plugin.evaluation import pckh_curves, pckh_metrics, pckh_table, save_predictions
from hg_plugin.mpii_format import save_ground_truth
from hg_plugin.prepare.metainfo import metainfo_of, metainfo_text


@pytest.fixture
def folder(people, tmp_path):
    """Ground truth of the persons in MPII's layout, and the predictions of two networks."""
    boxes = np.zeros((2, 2, 31))
    boxes[1, 0] = people['head_size'] / 0.6
    truth = dict(pos_gt_src=people['gt'].transpose(1, 2, 0) + 1, jnt_missing=~people['visible'].T)
    savemat(tmp_path / 'gt.mat', dict(truth, headboxes_src=boxes))
    save_predictions(tmp_path / 'good.mat', (people['pred'] + 9 * people['gt']) / 10)
    save_predictions(tmp_path / 'poor.npz', people['pred'])
    return tmp_path


@pytest.fixture
def evaluate(folder, tool):
    """Runs the tool on files of the folder."""

    def evaluate(*arguments):
        files = [folder / word if '.' in word else word for word in arguments]
        return tool('hg_plugin/__main__.py', 'eval_pckh', *files)

    return evaluate


@pytest.mark.parametrize('weights', ['annotations', 'equal'])
def test_tool_prints_a_row_for_each_file_and_draws_them(evaluate, folder, people, weights):
    options = '--gt', 'gt.mat', '--weights', weights, '--plot', 'curves.PNG'
    code, printed = evaluate('good.mat', 'poor.npz', *options)
    preds = {'good.mat': (people['pred'] + 9 * people['gt']) / 10, 'poor.npz': people['pred']}
    rows = {
        str(folder / name): pckh_metrics(pckh_curves(**people | dict(pred=pred), weights=weights))
        for name, pred in preds.items()
    }
    assert code == 0 and printed.rstrip('\n') == pckh_table(rows, weights=weights)
    good, poor = rows.values()
    assert good['Mean'] > poor['Mean']
    height, width, _ = image.imread(folder / 'curves.PNG').shape
    assert height > 400 and width > 800


def test_tool_ends_with_one_sentence_and_no_table(evaluate, folder):
    np.savez(folder / 'short.npz', preds=np.zeros((8, 16, 2)))
    error, printed = evaluate('good.mat', 'short.npz', '--gt', 'gt.mat')
    assert re.search(r'^error: .*short.npz: .*\(8, 16, 2\)', error) and printed == ''
    error, printed = evaluate('none.mat', '--gt', 'none.mat', '--plot', 'curves.txt')
    assert re.search('^error: .*curves.txt', error) and printed == ''  # before it reads
    assert not (folder / 'curves.txt').exists()


def test_other_joints_are_named_by_a_metainfo(evaluate, folder, people):
    names = ['wrist', 'left_finger', 'right_finger']
    (folder / 'hand.py').write_text(metainfo_text(metainfo_of('hand', names)))
    boxes = np.zeros((31, 2, 2))
    boxes[:, 1, 0] = people['head_size'] / 0.6
    few = {key: people[key][:, :3] for key in ('gt', 'visible')}
    save_ground_truth(folder / 'few.mat', **few, head_boxes=boxes, names=names)
    save_predictions(folder / 'few.npz', people['pred'][:, :3])
    _, printed = evaluate('few.npz', '--gt', 'few.mat', '--metainfo', 'hand.py', '--plot', 'few.png')
    columns, row = printed.splitlines()[1:]
    assert columns.split() == ['Wrist', 'Finger', 'Mean', 'Mean@0.1', 'AUC'] and len(row.split()) == 6
    assert image.imread(folder / 'few.png').ndim == 3
    error, _ = evaluate('few.npz', '--gt', 'few.mat')
    assert re.search('few.mat has 3 joints.*--metainfo', error)
