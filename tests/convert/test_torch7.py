import sys

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

PAPER_V1 = dict(
    num_stacks=2,
    num_keypoints=16,
    depth=4,
    channels=256,
    num_blocks=(3, 1),
    stem_channels=(64, 128, 128, 128, 256),
    out_channels=512,
    join='concat',
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


def test_eight_stacks_of_the_training_code(path, image):
    network, heatmaps = second_version(Modules(), image, num_stacks=8)
    save_torch7(path, network, tensor='Cuda')
    check(
        path,
        image,
        heatmaps,
        num_stacks=8,
        num_keypoints=16,
        depth=4,
        channels=20,
        num_blocks=(1, 1),
        stem_channels=(4, 8, 8, 20),
        residual='preact',
        join='add',
    )


@pytest.mark.parametrize(
    'kwargs, arguments',
    [
        (dict(num_stacks=1), dict(num_stacks=1, join='add')),
        (dict(num_modules=2, num_keypoints=11), dict(num_blocks=(2, 2), num_keypoints=11, join='add')),
        (dict(depth=1), dict(depth=1)),
        (
            dict(depth=2, channels=24, stem=(6, 12, 20)),
            dict(depth=2, channels=24, stem_channels=(6, 12, 20, 24)),
        ),
    ],
)
def test_other_sizes_of_the_second_version(path, image, kwargs, arguments):
    network, heatmaps = second_version(Modules(), image, **kwargs)
    save_torch7(path, network)
    check(path, image, heatmaps, residual='preact', **arguments)


@pytest.mark.parametrize('residual, name', [(preact_residual, 'preact'), (postact_residual, 'postact')])
def test_two_stacks_of_the_first_version(path, image, residual, name):
    network, heatmaps = first_version(Modules(), image, residual)
    save_torch7(path, network)
    check(
        path,
        image,
        heatmaps,
        num_stacks=2,
        depth=4,
        channels=16,
        num_blocks=(3, 1),
        stem_channels=(4, 8, 8, 8, 16),
        out_channels=32,
        residual=name,
        join='concat',
    )


def test_order_of_the_nodes_does_not_matter(path, image):
    for seed in range(3):
        network, heatmaps = second_version(Modules(), image, depth=2, seed=seed)
        save_torch7(path, network)
        check(path, image, heatmaps)
        network, heatmaps = first_version(Modules(), image, postact_residual, depth=2, seed=seed)
        save_torch7(path, network)
        check(path, image, heatmaps)


@pytest.mark.parametrize(
    'modules, storage',
    [
        (dict(backend='nn', old=True), {}),
        (dict(backend='nn'), dict(tensor='Double')),
        ({}, dict(shared=True)),
    ],
    ids=['2015', 'double', 'one storage'],
)
def test_ways_to_keep_the_weights(path, image, modules, storage):
    network, heatmaps = second_version(Modules(**modules), image, depth=2)
    save_torch7(path, network, **storage)
    check(path, image, heatmaps)


def test_running_std_becomes_a_variance(path, image):
    network, _ = second_version(Modules(backend='nn', old=True), image, depth=1)
    save_torch7(path, network)
    norm = next(
        module for module in network.fields['modules'].items if module.typename.endswith('BatchNormalization')
    )
    expected = norm.fields['running_std'].astype(np.float64) ** -2 - 1e-5
    assert np.allclose(read_torch7(path)[1]['stem_conv.1.running_var'], expected, rtol=1e-6, atol=0)


def test_network_inside_another_module(path, image):
    network, heatmaps = second_version(Modules(), image, depth=2)
    save_torch7(path, Object('nn.Sequential', modules=Table([network])))
    check(path, image, heatmaps)


def hollow(path, network):
    """Reads a file with the network's shapes and one element a tensor."""
    save_torch7(path, network, hollow=True)
    arguments, tensors = read_torch7(path)
    with torch.device('meta'):
        model = StackedHourglass(**arguments)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in tensors.items()} == shapes
    return arguments, sum(p.numel() for p in model.parameters())


@pytest.mark.slow
def test_published_sizes(path, image):
    with torch.no_grad():
        network, _ = second_version(Modules(), image, num_stacks=8, channels=256, stem=(64, 128, 128))
        arguments, parameters = hollow(path, network)
        assert parameters == 25_434_112
        assert arguments['stem_channels'] == (64, 128, 128, 256)
        network, _ = first_version(
            Modules(), image, postact_residual, stem=(64, 128, 128, 128), channels=256, out_channels=512
        )
        arguments, parameters = hollow(path, network)
    assert parameters == 26_370_848
    assert arguments == dict(PAPER_V1, residual='postact')


def test_batches_were_not_counted(path, image):
    network, _ = second_version(Modules(), image, depth=1)
    save_torch7(path, network)
    counts = [tensor for name, tensor in read_torch7(path)[1].items() if name.endswith('num_batches_tracked')]
    assert counts and all(count.dtype == torch.long and count == 0 for count in counts)


@pytest.mark.parametrize('share', [0.001, 0.3, 0.7, 0.999, 0.99999])
def test_files_that_were_cut_off(path, image, share):
    network, _ = second_version(Modules(), image, depth=1)
    save_torch7(path, network)
    with open(path, 'rb') as file:
        content = file.read()
    with open(path, 'wb') as file:
        file.write(content[: int(share * len(content))])
    assert is_torch7(path)
    with pytest.raises(InputError, match='cut off'):
        read_torch7(path)


def test_a_tensor_that_reaches_beyond_its_storage(path):
    save_torch7(path, Object('nn.SpatialConvolution', weight=np.zeros((3, 5), np.float32)))
    with open(path, 'rb') as file:
        content = file.read()
    sizes = np.array([3, 5, 5, 1], np.int64).tobytes()
    assert content.count(sizes) == 1
    with open(path, 'wb') as file:
        file.write(content.replace(sizes, np.array([3, 5_000_000, 5, 1], np.int64).tobytes()))
    with pytest.raises(InputError, match='longer than its storage of 15'):
        read_torch7(path)


@pytest.mark.parametrize(
    'content, message',
    [
        (Table(LR=2.5e-4, nStack=8), 'holds no stacked hourglass network'),
        (Object('nn.Sequential', modules=Table([Object('nn.Linear')])), 'a module of the class Linear'),
        (Object('nn.Sequential', modules=Table([Modules().relu()])), 'holds no stacked hourglass network'),
        (np.zeros(3, np.float32), 'holds no stacked hourglass network'),
    ],
)
def test_files_with_something_else(path, content, message):
    save_torch7(path, content)
    with pytest.raises(InputError, match=message):
        read_torch7(path)


def test_another_network_is_refused_with_what_differs(path, image):
    network, _ = second_version(Modules(), image, residuals=False, depth=2)
    save_torch7(path, network)
    with pytest.raises(InputError, match=r'norm1.* are missing, the modules .*(conv|norm) .* left over'):
        read_torch7(path)


def test_heatmaps_in_another_order_are_refused(path, image):
    network, _ = second_version(Modules(), image, depth=2)
    network.fields['outnode'].fields['data'].fields['mapindex'].items.reverse()
    save_torch7(path, network)
    with pytest.raises(InputError, match='first to last'):
        read_torch7(path)


def test_equal_modules_side_by_side_are_not_mixed_up(path, image):
    nn = Modules()
    twins = nn.sequential(nn.fork(nn.conv(3, 4), nn.conv(3, 4)), nn.add())
    save_torch7(path, twins)
    with pytest.raises(InputError, match='two equal modules side by side'):
        read_torch7(path)


def test_without_torchfile(path, monkeypatch):
    save_torch7(path, Table())
    monkeypatch.setitem(sys.modules, 'torchfile', None)
    with pytest.raises(InputError, match='pip install torchfile'):
        read_torch7(path)


def test_what_a_torch7_file_starts_with(tmp_path, path):
    save_torch7(path, Table())
    assert is_torch7(path)
    torch.save({}, tmp_path / 'new.pth')
    torch.save({}, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    assert not any(is_torch7(tmp_path / name) for name in ('new.pth', 'old.pth', 'none.pth'))
