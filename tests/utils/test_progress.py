import sys

from hg_plugin.utils.progress import Progress


def test_lines_in_a_log_and_a_bar_on_a_terminal(monkeypatch, capsys):
    with Progress(2, 'images [a]') as progress:
        progress.update()  # within ten seconds, and so without a line of its own
        progress.interval = 0
        progress.update('5 MB')
    *lines, last = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and all('2/2 images [a], 5 MB 0:00:0' in line for line in (*lines, last))
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    monkeypatch.setenv('TERM', 'xterm')
    with Progress(0, 'frames') as progress:
        progress.interval = 0
        progress.update()
    assert '\r' in capsys.readouterr().err
