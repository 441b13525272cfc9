import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hg_plugin.convert.torch7 import is_torch7, read_torch7
from hg_plugin.models import StackedHourglass
from hg_plugin.utils.errors import InputError

torchfile = pytest.importorskip('torchfile', reason='the package torchfile is not installed')

from torch7_files import (  # noqa: E402
    Modules,
    Object,
    Table,
    first_version,
    postact_residual,
    preact_residual,
    save_torch7,
    second_version,
)


@pytest.fixture
def image():
    return torch.from_numpy(np.random.RandomState(7).random_sample((1, 3, 64, 64)).astype(np.float32))


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / 'final_model.t7')


def check(path, image, heatmaps, **arguments):
    """The file's network, as read, has these arguments and gives these heatmaps in every stack."""
    read, tensors = read_torch7(path)
    assert {key: read[key] for key in arguments} == arguments
    model = StackedHourglass(**read).eval()
    model.load_state_dict(tensors)
    with torch.no_grad():
        outputs = model(image)
    assert len(outputs) == len(heatmaps)
    for ours, theirs in zip(outputs, heatmaps):
        assert (ours - theirs).abs().max() / theirs.std() < 1e-4


@pytest.mark.parametrize(
    'kwargs, num_blocks',
    [
        (dict(num_stacks=8), 1),
        (dict(num_stacks=1), 1),
        (dict(num_modules=2, num_keypoints=11), 2),
        (dict(depth=1), 1),
    ],
)
def test_networks_of_the_second_version(path, image, kwargs, num_blocks):
    network, heatmaps = second_version(Modules(), image, **kwargs)
    save_torch7(path, network, 'Cuda')
    kwargs.pop('num_modules', None)
    expected = dict(num_stacks=2, num_keypoints=16, depth=4, residual='preact', join='add') | kwargs
    check(path, image, heatmaps, **expected, num_blocks=(num_blocks,) * 2, stem_channels=(4, 8, 8, 20))


@pytest.mark.parametrize('residual, name', [(preact_residual, 'preact'), (postact_residual, 'postact')])
def test_networks_of_the_first_version(path, image, residual, name):
    network, heatmaps = first_version(Modules(), image, residual)
    save_torch7(path, network)
    shape = dict(num_stacks=2, depth=4, num_blocks=(3, 1), stem_channels=(4, 8, 8, 8, 16), out_channels=32)
    check(path, image, heatmaps, **shape, residual=name, join='concat')


@pytest.mark.parametrize('seed', [1, 2])
def test_order_of_the_nodes_does_not_matter(path, image, seed):
    for network, heatmaps in (
        second_version(Modules(), image, depth=2, seed=seed),
        first_version(Modules(), image, postact_residual, depth=2, seed=seed),
    ):
        save_torch7(path, network)
        check(path, image, heatmaps)


@pytest.mark.parametrize('old, kind', [(True, 'Float'), (False, 'Double')], ids=['2015', 'double'])
def test_other_ways_to_keep_the_weights(path, image, old, kind):
    network, heatmaps = second_version(Modules('nn', old), image, depth=2)
    save_torch7(path, network, kind)
    check(path, image, heatmaps)


@pytest.mark.parametrize('share', [0.001, 0.7, 0.99999])
def test_files_that_were_cut_off(path, image, share):
    save_torch7(path, second_version(Modules(), image, depth=1)[0])
    content = Path(path).read_bytes()
    Path(path).write_bytes(content[: int(share * len(content))])
    assert is_torch7(path)
    with pytest.raises(InputError, match='cut off'):
        read_torch7(path)


def test_a_tensor_that_reaches_beyond_its_storage(path):
    save_torch7(path, Object('nn.SpatialConvolution', weight=np.zeros((3, 5), np.float32)))
    content = Path(path).read_bytes()
    sizes, longer = (np.array([3, length, 5, 1], np.int64).tobytes() for length in (5, 5_000_000))
    assert content.count(sizes) == 1
    Path(path).write_bytes(content.replace(sizes, longer))
    with pytest.raises(InputError, match='longer than its storage'):
        read_torch7(path)


def equal_modules_side_by_side():
    nn = Modules()
    return nn.sequential(nn.fork(nn.conv(3, 4), nn.conv(3, 4)), nn.add())


@pytest.mark.parametrize(
    'content, message',
    [
        (Table(LR=2.5e-4, nStack=8), 'no stacked hourglass'),
        (Modules().sequential(Object('nn.Linear')), 'Linear'),
        (np.zeros(3, np.float32), 'no stacked hourglass'),
        (equal_modules_side_by_side(), 'two equal modules'),
    ],
)
def test_files_with_something_else(path, content, message):
    save_torch7(path, content)
    with pytest.raises(InputError, match=message):
        read_torch7(path)


def test_another_network_is_refused_with_what_differs(path, image):
    save_torch7(path, second_version(Modules(), image, residuals=False, depth=2)[0])
    with pytest.raises(InputError, match=r'norm1.* missing'):
        read_torch7(path)


def test_without_torchfile(path, monkeypatch):
    save_torch7(path, Table())
    monkeypatch.setitem(sys.modules, 'torchfile', None)
    with pytest.raises(InputError, match='pip install torchfile'):
        read_torch7(path)


@pytest.mark.parametrize('zipped', [True, False])
def test_files_of_torch_are_not_of_torch7(path, zipped):
    torch.save({}, path, _use_new_zipfile_serialization=zipped)
    assert not is_torch7(path)
