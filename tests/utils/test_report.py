from hg_plugin.compat.mmpose import stood_in


def test_the_report_for_a_bug(run):
    code, out = run('-m', 'hg_plugin')
    assert code == 0
    for heading in (
        'hg_plugin',
        'torch',
        'mmengine',
        'mmcv',
        'mmpose',
        'numpy',
        'set-up',
        'GPU',
        'CPU threads',
    ):
        assert heading in out
    assert ('slim' if stood_in else 'full') in out
    assert 'Traceback' not in out and 'Warning' not in out
