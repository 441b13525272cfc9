import re
import sys

from hg_plugin.utils.progress import Progress


def test_progress_on_a_terminal_and_in_a_log(monkeypatch, capsys):
    with Progress(2, 'images') as progress:
        progress.update()  # within ten seconds, and so without a line of its own
        progress.interval = 0
        progress.start -= 100
        progress.update()
        progress.total = 202
    unfinished, last = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r'2/2 images, 0.0/s, elapsed 0:01:4\d', unfinished)
    assert re.fullmatch(r'2/202 images, 0.0/s, elapsed 0:01:4\d, ETA 2:4[67]:\d\d', last)
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True)
    with Progress(0, 'frames') as progress:
        progress.interval = 0
        progress.update()
    out = capsys.readouterr().err
    assert out.count('\n') == 1 and out.count('\r') == 2 and '1/? frames' in out and 'ETA' not in out
