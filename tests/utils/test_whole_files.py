"""MMEngine's own writes on a full disk, in a process of its own with a limit on the size of files."""

import sys

import pytest

SCRIPT = """
import os, resource, sys
import mmcv, mmengine, numpy as np
from mmengine.visualization import LocalVisBackend
import hg_plugin
from hg_plugin.utils.errors import InputError

os.chdir(sys.argv[1])
image = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
backend = LocalVisBackend('vis')
backend.add_scalar('loss', 1.0)
mmengine.dump([1], 'dump.pkl')
mmengine.dump(dict(a=1), 'dump.json')
resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, resource.RLIM_INFINITY))
for name, write in (
    ('dump.pkl', lambda: mmengine.dump([0] * 10_000, 'dump.pkl')),
    ('dump.json', lambda: mmengine.dump([0] * 10_000, 'dump.json')),
    ('new/image.png', lambda: mmcv.imwrite(image, 'new/image.png')),
):
    try:
        write()
    except InputError as error:
        assert str(error) == f'{name} cannot be written: File too large.', error
    else:
        raise AssertionError(name)
for _ in range(3):
    backend.add_scalar('x' * 5_000, 1.0)
files = {name for _, _, names in os.walk('.') for name in names}
assert files == {'dump.pkl', 'dump.json', 'scalars.json'}, files
assert mmengine.load('dump.pkl') == [1] and mmengine.load('dump.json') == dict(a=1)
"""


@pytest.mark.slow
def test_whole_or_not_there(run, tmp_path):
    pytest.importorskip('resource')
    (tmp_path / 'script.py').write_text(SCRIPT)
    folder = tmp_path / 'files'
    folder.mkdir()
    code, out = run(tmp_path / 'script.py', folder, PYTHONPATH=':'.join(sys.path))
    assert code == 0, out
    assert out.count('is not complete: File too large. The training goes on.') == 1
