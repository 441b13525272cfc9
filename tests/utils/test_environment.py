import subprocess

from hg_plugin.compat.mmpose import stood_in
from hg_plugin.utils.environment import git_state


def test_the_report_for_a_bug(run):
    out = run('-m', 'hg_plugin', 'env')
    assert 'Traceback' not in out and 'Warning' not in out
    for heading in ('hg_plugin', 'torch', 'mmengine', 'mmcv', 'mmpose', 'numpy', 'GPU', 'CPU threads'):
        assert heading in out
    assert ('slim' if stood_in else 'full') in out


def test_git_state(tmp_path):
    """Commit and change of a repository; and where there is none."""
    git = ['git', '-C', tmp_path, '-c', 'user.name=a', '-c', 'user.email=a@example.org']
    (tmp_path / 'tracked.py').write_text('a = 1\n')
    for words in (['init', '-q', '-b', 'topic'], ['add', '.'], ['commit', '-q', '-m', 'first']):
        subprocess.run([*git, *words], check=True)
    commit = subprocess.check_output([*git, 'rev-parse', 'HEAD'], text=True)[:12]
    assert git_state(tmp_path) == commit
    (tmp_path / 'tracked.py').write_text('a = 2\n')
    assert git_state(tmp_path) == f'{commit}-dirty'
    assert git_state(tmp_path / 'absent') == 'no repository'
