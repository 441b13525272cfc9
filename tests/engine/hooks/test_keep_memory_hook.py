import platform
import sys
from types import SimpleNamespace

import pytest

from hg_plugin.engine.hooks import keep_freed_memory, keep_memory_hook

CODE = """
import numpy as np
import hg_plugin
from mmengine.config import Config
from mmengine.registry import HOOKS
from resource import RUSAGE_SELF, getrusage
hook = Config.fromfile('configs/hg_2stack_mpii.py').default_hooks.keep_memory
for changes in (dict(enable=False), {}):
    HOOKS.build({**hook, **changes}).before_run(None)
    faults = []
    for _ in range(5):
        np.ones(10_000_000)  # 80 MB: more than the library keeps by itself
        faults.append(getrusage(RUSAGE_SELF).ru_minflt)
    print(faults[-1] - faults[-2])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='only the GNU C library can be told')
def test_freed_memory_is_used_again(run, tmp_path):
    # in a process of its own, because it cannot be taken back
    (tmp_path / 'faults.py').write_text(CODE)
    code, out = run(tmp_path / 'faults.py')
    assert code == 0, out
    given_back, kept = map(int, out.split())
    assert kept < 10 < given_back


def test_whether_it_could_be_set(monkeypatch):
    monkeypatch.setattr(
        keep_memory_hook.ctypes,
        'CDLL',
        lambda name: SimpleNamespace(mallopt=lambda option, value: value == 0),
    )
    assert keep_freed_memory() is False  # the second setting is refused
    monkeypatch.setattr(keep_memory_hook.ctypes, 'CDLL', lambda name: SimpleNamespace())
    assert keep_freed_memory() is False  # another C library
    calls = []
    monkeypatch.setattr(
        keep_memory_hook.ctypes,
        'CDLL',
        lambda name: SimpleNamespace(mallopt=lambda *call: calls.append(call) or 1),
    )
    monkeypatch.setattr(sys, 'platform', 'darwin')
    assert keep_freed_memory() is False and not calls
    monkeypatch.setattr(sys, 'platform', 'linux')
    assert keep_freed_memory() is True and len(calls) == 2
