import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image
from scipy.io import savemat

from hg_plugin.evaluation import pckh_curves, pckh_metrics, pckh_table, plot_pckh, save_predictions
from hg_plugin.mpii_format import save_ground_truth
from hg_plugin.utils.errors import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(people, tmp_path):
    """Ground truth of nine persons in MPII's layout, and the predictions of two networks."""
    people = people(9)
    boxes = np.zeros((2, 2, 9))
    boxes[1, 0] = people['head_size'] / 0.6
    savemat(
        tmp_path / 'gt.mat',
        dict(
            pos_gt_src=people['gt'].transpose(1, 2, 0) + 1,
            jnt_missing=~people['visible'].T,
            headboxes_src=boxes,
        ),
    )
    save_predictions(tmp_path / 'good.mat', (people['pred'] + 9 * people['gt']) / 10)
    save_predictions(tmp_path / 'poor.npz', people['pred'])
    return tmp_path


@pytest.fixture
def tool(folder, monkeypatch):
    """Runs the tool in the folder, in this process, because importing torch takes seconds."""

    def run(*arguments):
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, 'argv', ['eval_pckh.py', *arguments])
        runpy.run_path(str(ROOT / 'tools/eval_pckh.py'), run_name='__main__')

    return run


def test_tool_prints_a_row_for_each_file_and_draws_them(folder, people):
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    command = [sys.executable, str(ROOT / 'tools/eval_pckh.py'), 'good.mat', 'poor.npz', '--gt', 'gt.mat']
    done = subprocess.run(
        [*command, '--plot', 'curves.png'],
        cwd=folder,
        text=True,
        capture_output=True,
        env={**os.environ, 'PYTHONPATH': path},
    )
    assert done.returncode == 0, done.stderr
    people = people(9)
    good = {**people, 'pred': (people['pred'] + 9 * people['gt']) / 10}
    rows = {'good.mat': pckh_metrics(pckh_curves(**good)), 'poor.npz': pckh_metrics(pckh_curves(**people))}
    assert done.stdout.rstrip('\n') == pckh_table(rows, weights='annotations')
    assert rows['good.mat']['Mean'] > rows['poor.npz']['Mean']
    plot = image.imread(folder / 'curves.png')
    assert plot.shape[0] > 400 and plot.shape[1] > 800
    assert {file.name for file in folder.iterdir()} == {'gt.mat', 'good.mat', 'poor.npz', 'curves.png'}


def test_tool_weighs_equally_when_asked(tool, people, capsys):
    tool('poor.npz', '--gt', 'gt.mat', '--weights', 'equal')
    row = pckh_metrics(pckh_curves(**people(9), weights='equal'))
    assert capsys.readouterr().out.rstrip('\n') == pckh_table({'poor.npz': row}, weights='equal')


def test_tool_ends_with_one_sentence_and_no_table(tool, folder, capsys):
    np.savez(folder / 'short.npz', preds=np.zeros((8, 16, 2)))
    with pytest.raises(SystemExit, match=r'^error: short.npz: preds has shape \(8, 16, 2\)'):
        tool('good.mat', 'short.npz', '--gt', 'gt.mat')
    assert capsys.readouterr().out == ''


def test_a_plot_that_cannot_be_drawn_is_found_before_anything_is_computed(tool, folder, capsys):
    before = sorted(folder.iterdir())
    with pytest.raises(SystemExit, match='^error: curves.txt does not end in the extension of an image'):
        tool('none.mat', '--gt', 'none.mat', '--plot', 'curves.txt')
    assert capsys.readouterr().out == '' and sorted(folder.iterdir()) == before


def test_the_plots_extension_may_be_in_capitals(tool, folder):
    tool('poor.npz', '--gt', 'gt.mat', '--plot', 'CURVES.PNG')
    assert (folder / 'CURVES.PNG').read_bytes().startswith(b'\x89PNG')


def test_plot_has_a_line_a_file_in_every_panel(people, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    monkeypatch.setattr(Figure, 'savefig', lambda self, file, **kwargs: drawn.append((self, kwargs)))
    people = people(9)
    people['visible'][:, 9] = False  # a column of NaN is drawn as nothing
    curves = {'ours': pckh_curves(**people), 'theirs': pckh_curves(**{**people, 'pred': people['gt']})}
    plot_pckh(curves, tmp_path / 'curves.pdf', weights='annotations')
    ((figure, kwargs),) = drawn
    assert kwargs['format'] == 'pdf'
    groups = ['Head', 'Shoulder', 'Elbow', 'Wrist', 'Hip', 'Knee', 'Ankle']
    assert [panel.get_title() for panel in figure.axes] == ['Mean weighted by annotations', *groups]
    for panel, column in zip(figure.axes, ['Mean', *groups]):
        for line, own in zip(panel.get_lines(), curves.values()):
            np.testing.assert_array_equal(line.get_ydata(), own[column])
            np.testing.assert_allclose(line.get_xdata(), np.linspace(0, 0.5, 51))
        assert len(panel.get_lines()) == 2
    metrics = pckh_metrics(curves['ours'])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        f'ours: {metrics["Mean"]:.2f}, AUC {metrics["AUC"]:.2f}',
        'theirs: 100.00, AUC 100.00',
    ]


def test_plot_refuses_what_is_no_image_before_it_draws(people, tmp_path):
    with pytest.raises(InputError, match='curves.txt .* name it .png'):
        plot_pckh({'ours': pckh_curves(**people(3))}, tmp_path / 'curves.txt', weights='equal')
    assert not list(tmp_path.iterdir())


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
    with pytest.raises(SystemExit, match='few.mat has 3 joints; name them with --metainfo'):
        tool('few.npz', '--gt', 'few.mat')
