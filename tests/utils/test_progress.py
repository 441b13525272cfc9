import os
import sys

import cv2
import pytest

from hg_plugin.utils.progress import Progress, imap_with_progress


@pytest.mark.parametrize('terminal', [False, True])
def test_lines_in_a_log_and_a_bar_on_a_terminal(monkeypatch, capsys, terminal):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: terminal)
    monkeypatch.setenv('TERM', 'xterm')
    with Progress(2, 'images [a]') as progress:
        progress.update()  # within ten seconds, and so without a line of its own
        progress.interval = 0
        progress.update('5 MB')
    printed = capsys.readouterr().err
    assert ('\r' in printed) == terminal
    if not terminal:
        assert len(printed.splitlines()) == 2 and '2/2 images [a], 5 MB 0:00:0' in printed.splitlines()[-1]


def double(number):
    return 2 * number, cv2.getNumThreads(), os.getpid()


def fail(number):
    raise ValueError(f'number {number}')


@pytest.mark.parametrize('num_workers', [1, 2])
def test_results_come_in_order_with_progress(num_workers, capfd):
    results = []
    tasks = imap_with_progress(double, range(30), num_workers, 'numbers', lambda: f'{len(results)} used')
    for result in tasks:
        results.append(result)
    assert [result[0] for result in results] == list(range(0, 60, 2))
    assert '30/30 numbers, 30 used ' in capfd.readouterr().err
    processes = {process for *_, process in results}
    if num_workers == 1:
        assert processes == {os.getpid()}
    else:
        assert os.getpid() not in processes and all(threads == 1 for _, threads, _ in results)
    with pytest.raises(ValueError, match='number 0'):
        list(imap_with_progress(fail, range(3), num_workers, 'numbers'))
