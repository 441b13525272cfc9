import argparse
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from hg_plugin.convert.families import FAMILIES
from hg_plugin.convert.published import convert_checkpoint, read_network
from hg_plugin.models import StackedHourglass
from hg_plugin.utils.checkpoint import read_checkpoint
from hg_plugin.utils.errors import InputError

TOOL = 'hg_plugin/__main__.py', 'convert_checkpoint'
PREFIX = dict(princeton='model.module.', bearpaw='module.')
STEM = dict(princeton=(64, 128, 128, 256), bearpaw=(64, 128, 256, 256))
families = pytest.mark.parametrize('family', FAMILIES)


@pytest.fixture
def golden(real_data):
    """The names and shapes of a published two-stack network, without prefix, and its heatmaps."""

    def load(family):
        folder = real_data('../golden')
        shapes = json.loads((folder / f'{family}_2stack.json').read_text())
        with np.load(folder / f'{family}_2stack.npz') as file:
            heatmaps = file['heatmaps']
        assert all(name.startswith(PREFIX[family]) for name in shapes)
        return {name[len(PREFIX[family]) :]: shape for name, shape in shapes.items()}, heatmaps

    return load


def fill(shapes):
    """Weights by the rule that comes with the golden heatmaps."""
    tensors = {}
    for name, shape in shapes.items():
        n = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
        if name.endswith('num_batches_tracked'):
            tensors[name] = torch.zeros((), dtype=torch.long)
            continue
        if name.endswith('running_var'):
            n = 1 + 0.2 * abs(n)
        elif name.endswith('running_mean'):
            n = 0.1 * n
        elif len(shape) == 4:
            n = n * np.sqrt(1 / np.prod(shape[1:]))
        else:
            n = name.endswith('weight') + 0.1 * n
        tensors[name] = torch.from_numpy(np.asarray(n, np.float32))
    return tensors


def network(family, num_stacks=1, **arguments):
    """The tensors of a network by the names of a code base, of one element each, however large."""
    with torch.device('meta'):
        model = StackedHourglass(num_stacks, stem_channels=STEM[family], **arguments)
    return {
        FAMILIES[family].rename(name): torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
        for name, tensor in model.state_dict().items()
    }


def save(content, path):
    torch.save(content, path)
    return str(path)


@families
def test_golden_heatmaps_of_every_stack(tmp_path, golden, family):
    shapes, expected = golden(family)
    tensors = {PREFIX[family] + name: tensor for name, tensor in fill(shapes).items()}
    source = save(dict(state_dict=tensors, optimizer={}, epoch=9), tmp_path / 'checkpoint.pt')
    out, config_out = str(tmp_path / 'out.pth'), str(tmp_path / 'out.py')
    line = convert_checkpoint(source, out, config_out=config_out)
    assert '2 stacks, 16 keypoints, 6,' in line

    model = MODELS.build(Config.fromfile(config_out).model).eval()
    model.load_state_dict(torch.load(out, weights_only=True)['state_dict'])
    image = np.random.RandomState(7).random_sample((1, 3, 256, 256)).astype(np.float32)
    with torch.no_grad():
        heatmaps = model.backbone(torch.from_numpy(image))
    assert len(heatmaps) == len(expected) == 2
    for ours, theirs in zip(heatmaps, expected):
        assert np.abs(ours[0].numpy() - theirs).max() / theirs.std() < 5e-6


@pytest.mark.parametrize(
    'family, num_stacks, num_blocks, num_keypoints',
    [
        *((family, stacks, 1, 16) for family in FAMILIES for stacks in (1, 8)),
        ('princeton', 2, 1, 12),
        ('bearpaw', 4, 2, 14),
    ],
)
def test_networks_that_are_recognised(tmp_path, family, num_stacks, num_blocks, num_keypoints):
    sizes = dict(num_stacks=num_stacks, num_blocks=(num_blocks, num_blocks), num_keypoints=num_keypoints)
    found = read_network(save(network(family, **sizes), tmp_path / 'bare.pt'))
    assert found.family.title == FAMILIES[family].title
    assert found.arguments == dict(sizes, depth=4, channels=256, stem_channels=STEM[family])


@families
def test_what_a_file_need_not_have(tmp_path, golden, family):
    tensors = fill(golden(family)[0])
    full = read_network(save(tensors, tmp_path / 'a.pt'))
    unused = {
        name.rpartition('.')[0]
        for name, tensor in tensors.items()
        if name.endswith('.skip_layer.conv.weight') and tensor.shape[0] == tensor.shape[1]
    }
    assert len(unused) == (29 if family == 'princeton' else 0)
    for name in [*tensors]:
        if name.endswith('num_batches_tracked') or name.rpartition('.')[0] in unused:
            del tensors[name]
    bare = read_network(save(tensors, tmp_path / 'b.pt'))
    assert bare.arguments == full.arguments
    torch.testing.assert_close(bare.tensors, full.tensors, rtol=0, atol=0)


@families
def test_configs_normalize_images_as_the_family(tmp_path, family):
    source = save(network(family), tmp_path / "it's.pt")
    convert_checkpoint(source, str(tmp_path / 'out.pth'))
    model = MODELS.build(Config.fromfile(tmp_path / 'out.py').model)
    red, green, blue = 51, 102, 204
    # as OpenCV reads images
    image = torch.tensor([blue, green, red], dtype=torch.uint8).view(3, 1, 1).expand(3, 256, 256)
    inputs = model.data_preprocessor(dict(inputs=[image], data_samples=[]))['inputs'][0, :, 0, 0]
    mean = dict(princeton=(0, 0, 0), bearpaw=(0.4404, 0.4440, 0.4327))[family]
    assert torch.allclose(inputs, torch.tensor([red, green, blue]) / 255 - torch.tensor(mean), atol=1e-6)
    text = (tmp_path / 'out.py').read_text()
    assert '"it\'s.pt"' in text and str(tmp_path) not in text and FAMILIES[family].title in text


def test_a_fork_that_normalizes_otherwise_is_recognised(tmp_path):
    """fast-human-pose-estimation and DarkPose: bearpaw's names, HRNet's trainer, and ImageNet's mean."""
    tensors = network('bearpaw')
    fork = save(dict(state_dict=tensors, best_state_dict=tensors, perf=0.9, epoch=140), tmp_path / 'fork.pth')
    bare = save(tensors, tmp_path / 'bare.pth')
    out = tmp_path / 'out.pth'

    def normalization(source, **kwargs):
        line = convert_checkpoint(source, str(out), **kwargs)
        preprocessor = Config.fromfile(tmp_path / 'out.py').model.data_preprocessor
        return 'is a guess' in line, preprocessor.mean[0], preprocessor.std[0]

    assert normalization(fork) == (False, 123.675, 58.395)
    assert normalization(fork, normalization='bearpaw') == (False, 112.302, 255.0)
    assert normalization(bare) == (True, 112.302, 255.0)
    assert normalization(bare, normalization='imagenet') == (False, 123.675, 58.395)


def test_config_of_other_keypoints_says_that_the_dataset_does_not_fit(tmp_path):
    source = save(network('bearpaw', num_keypoints=17), tmp_path / 'a.pt')
    assert '17 keypoints' in convert_checkpoint(source, str(tmp_path / 'out.pth'))
    assert 'has 17 keypoints' in (tmp_path / 'out.py').read_text()
    model = MODELS.build(Config.fromfile(tmp_path / 'out.py').model)
    assert model.head.out_channels == model.backbone.num_keypoints == 17


def without(name):
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    'family, change, message',
    [
        ('princeton', without('hgs.1.0.low2.low1.bn2.running_var'), 'bn2.running_var is missing'),
        ('bearpaw', without('score_.0.bias'), 'score_.0.bias is missing'),
        ('bearpaw', lambda tensors: tensors | {'extra': torch.zeros(1)}, 'extra is left over'),
        ('bearpaw', lambda tensors: tensors | {'fc.1.0.weight': torch.zeros(2)}, 'fc.1.0.*another shape'),
        ('bearpaw', lambda tensors: tensors | {'score.0.weight': torch.zeros(())}, 'num_keypoints is 0'),
        ('bearpaw', lambda tensors: {k: t for k, t in tensors.items() if k[:3] != 'hg.'}, 'num_blocks is'),
        ('princeton', lambda tensors: dict(model=tensors, epoch=3), 'no weights'),
        ('princeton', lambda tensors: StackedHourglass(channels=16).state_dict(), 'no known'),
    ],
)
def test_files_that_are_refused(tmp_path, family, change, message):
    source = save(change(network(family, 2)), tmp_path / 'a.pt')
    with pytest.raises(InputError, match=message):
        convert_checkpoint(source, str(tmp_path / 'out.pth'))
    assert [path.name for path in tmp_path.iterdir()] == ['a.pt']


def test_only_trusted_files_may_run_code(tmp_path):
    content = dict(state_dict=network('bearpaw'), args=argparse.Namespace(lr=1))
    source = save(content, tmp_path / 'a.pt')
    with pytest.raises(InputError, match='could run code'):
        read_network(source)
    assert read_network(source, trust=True).arguments['num_stacks'] == 1


@pytest.mark.parametrize(
    'out, config_out, message',
    [('same.py', 'same.py', 'different files'), ('folder', 'out.py', 'cannot be written')],
)
def test_outputs_that_cannot_be_written(tmp_path, out, config_out, message):
    source = save(network('bearpaw'), tmp_path / 'a.pt')
    (tmp_path / 'folder').mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        convert_checkpoint(source, str(tmp_path / out), config_out=str(tmp_path / config_out))
    assert sorted(tmp_path.iterdir()) == before


def test_torch7_files(torch7, tmp_path):
    convert_checkpoint(str(torch7 / '1st_postact.t7'), str(tmp_path / 'b.pth'))
    model = Config.fromfile(tmp_path / 'b.py').model
    assert model.data_preprocessor.mean == [0, 0, 0] and model.data_preprocessor.std == [255] * 3
    MODELS.build(model).load_state_dict(read_checkpoint(str(tmp_path / 'b.pth'))['state_dict'])


def test_command_line(tmp_path, tool):
    source = save(network('princeton'), tmp_path / 'a.pt')
    checkpoint, config = tmp_path / 'b.pth', tmp_path / 'c.py'
    line = "Princeton's PyTorch code: 1 stack, 16 keypoints, 3,426,448 parameters"
    printed = f'{line} -> {checkpoint}, {config}\n'
    assert tool(*TOOL, source, checkpoint, '--config-out', config) == (0, printed)
    assert tool(*TOOL, tmp_path / 'none.pt', tmp_path / 'f.pth')[0].startswith('error: ')
    assert sorted(tmp_path.iterdir()) == [Path(source), checkpoint, config]
