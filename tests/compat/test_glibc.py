import platform

import pytest

CODE = """
import numpy as np
from hg_plugin.training.runner import set_backends
from mmengine.config import Config
from resource import RUSAGE_SELF, getrusage
env_cfg = Config.fromfile('configs/hg_2stack_mpii.py').env_cfg
for changes in (dict(keep_memory=False), {}):
    set_backends({**env_cfg, **changes})
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
