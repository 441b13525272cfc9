import sys

import numpy as np
import pytest
import torch

from hg_plugin.convert.torch7 import read_torch7
from hg_plugin.models import StackedHourglass
from hg_plugin.utils.errors import InputError

SECOND = dict(residual='preact', join='add', stem_channels=(4, 8, 8, 10), channels=10)
FIRST = dict(join='concat', num_blocks=(3, 1), stem_channels=(4, 8, 8, 8, 10), out_channels=14)


@pytest.mark.parametrize(
    'name, arguments',
    [
        ('8_stacks', dict(SECOND, num_stacks=8, depth=1)),
        ('1_stack', dict(SECOND, num_stacks=1, depth=4)),
        # the next three list their modules in other orders
        ('2_modules', dict(SECOND, num_stacks=2, num_blocks=(2, 2), num_keypoints=11)),
        ('1st_preact', dict(FIRST, residual='preact', depth=2)),
        ('1st_postact', dict(FIRST, residual='postact', depth=4)),
        ('2015', dict(SECOND, num_stacks=2)),  # weights with two axes, and running_std
        ('double', dict(SECOND, num_stacks=2)),  # of 64 bits
    ],
)
def test_networks(torch7, name, arguments):
    read, tensors = read_torch7(str(torch7 / f'{name}.t7'))
    assert {key: read[key] for key in arguments} == arguments
    model = StackedHourglass(**read).eval()
    model.load_state_dict(tensors)
    image = np.random.RandomState(7).random_sample((1, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        heatmaps = torch.cat(model(torch.from_numpy(image))).numpy()[..., ::2, ::2]
    expected = np.load(torch7 / f'{name}.npy')
    assert heatmaps.shape == expected.shape and np.abs(heatmaps - expected).max() < 1e-4 * expected.std()


@pytest.mark.parametrize('share', [0.001, 0.7, 0.99999])
def test_files_that_were_cut_off(torch7, tmp_path, share):
    content = (torch7 / '1_stack.t7').read_bytes()
    (tmp_path / 'a.t7').write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match='cut off'):
        read_torch7(tmp_path / 'a.t7')


def test_a_tensor_that_reaches_beyond_its_storage(torch7, tmp_path):
    content = (torch7 / 'tensor.t7').read_bytes()
    sizes, longer = (np.array([3, length, 5, 1], np.int64).tobytes() for length in (5, 5_000_000))
    assert content.count(sizes) == 1
    (tmp_path / 'a.t7').write_bytes(content.replace(sizes, longer))
    with pytest.raises(InputError, match='RuntimeError'):
        read_torch7(tmp_path / 'a.t7')


@pytest.mark.parametrize(
    'name, message',
    [
        ('table', 'no stacked hourglass'),
        ('linear', 'Linear'),
        ('two_equal', 'two equal modules'),
        ('early', r'norm1.* missing'),  # without residuals before the predictions, as an early revision
    ],
)
def test_something_else(torch7, name, message):
    with pytest.raises(InputError, match=message):
        read_torch7(str(torch7 / f'{name}.t7'))


def test_without_torchfile(torch7, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchfile', None)
    with pytest.raises(InputError, match='pip install torchfile'):
        read_torch7(torch7 / 'table.t7')
