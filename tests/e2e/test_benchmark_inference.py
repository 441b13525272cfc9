import json
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from hg_plugin.prepare.synthetic import make_synthetic

CONFIG = 'configs/hg_2stack_synthetic.py'


def rows(text):
    """{first cell: other cells} of the Markdown table in a text."""
    lines = [
        [cell.strip() for cell in line.strip('|').split('|')] for line in re.findall(r'^\|.*', text, re.M)
    ]
    return {first: others for first, *others in lines}


@pytest.mark.slow
def test_the_ways_stand_side_by_side_with_the_pckh_that_testing_finds(run, tmp_path):
    for package in ('onnxruntime', 'onnxscript', 'onnx'):
        pytest.importorskip(package)
    make_synthetic(tmp_path / 'persons', num_train=3, num_val=5, seed=0, num_workers=1)
    torch.manual_seed(0)
    checkpoint = tmp_path / 'random.pth'
    torch.save(dict(state_dict=MODELS.build(Config.fromfile(CONFIG).model).state_dict()), checkpoint)
    names = 'reparameterized', 'ONNX Runtime', 'int8, ONNX Runtime'
    options = '--persons 5 --calibration 3 --rounds 1 --runs 1 --batches 1 2 --device cpu'.split()
    options += ['--data-root', tmp_path / 'persons', '--out', tmp_path / 'table.md', '--only', *names]
    code, out = run('benchmarks/inference.py', '--config', CONFIG, '--checkpoint', checkpoint, *options)
    assert code == 0, out
    text = (tmp_path / 'table.md').read_text()
    assert text.rstrip() in out and re.search(r'0\.08 GMACs: \S+ ms at the \S+ GFLOP/s', text)
    table = rows(text)
    assert [way for way in table if way.strip('- ')] == ['eager', *names]
    small, ratio, large, _, rate, difference, pckh = table['eager']
    assert float(small) > 0 and ratio == '1.00' and float(difference) == 0
    assert float(rate) == pytest.approx(1e3 / float(large), rel=0.01)
    onnx, int8 = table['ONNX Runtime'], table['int8, ONNX Runtime']
    assert 0 < float(onnx[5]) < 1e-4 < float(int8[5])
    assert float(onnx[6]) == pytest.approx(float(pckh), abs=0.1) and float(int8[6]) >= 0
    options = ['--data-root', tmp_path / 'persons', '--work-dir', tmp_path / 'work']
    code, out = run('tools/test.py', CONFIG, checkpoint, *options, '--out', tmp_path / 'figures.json')
    assert code == 0, out
    found = json.loads((tmp_path / 'figures.json').read_text())['Mean']
    assert float(pckh) == pytest.approx(found, abs=0.01)
