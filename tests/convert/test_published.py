import argparse
import json
import re
import runpy
import signal
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

TOOL = Path(__file__).parents[2] / 'tools/convert_checkpoint.py'
PREFIX = dict(princeton='model.module.', bearpaw='module.')
STEM = dict(princeton=(64, 128, 128, 256), bearpaw=(64, 128, 256, 256))
SMALL = dict(
    princeton=dict(channels=16, stem_channels=(4, 8, 8, 16)),
    bearpaw=dict(channels=16, stem_channels=(4, 8, 16, 16)),
)
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


def hollow(shapes):
    """One element a tensor, however large."""
    return {
        name: torch.zeros((), dtype=torch.long if name.endswith('tracked') else torch.float).expand(shape)
        for name, shape in shapes.items()
    }


def restack(shapes, num_stacks, num_blocks=1, num_keypoints=16):
    """Names and shapes of another network of the same code, made from those for two stacks with one block."""
    joins = r'(merge_features|merge_preds|fc_|score_)\.'
    stack = r'((?:hgs|hg|features|res|fc|outs|score|merge_features|merge_preds|fc_|score_)\.)0(\..+)'
    other = {}
    for name, shape in shapes.items():
        if re.match(r'(outs|score)\.', name):
            shape = [num_keypoints, *shape[1:]]
        if re.match(r'(merge_preds|score_)\.\d.*weight', name):
            shape = [shape[0], num_keypoints, 1, 1]
        block = re.match(r'((?:hg|res)\.0\.(?:hg\.\d\.\d\.)?)0(\..+)', name)
        names = [f'{block[1]}{index}{block[2]}' for index in range(num_blocks)] if block else [name]
        for name in names:
            match = re.match(stack, name)
            if match:
                for index in range(num_stacks - bool(re.match(joins, name))):
                    other[f'{match[1]}{index}{match[2]}'] = shape
            elif not re.match(stack.replace('0', '1'), name):
                other[name] = shape
    return other


def our_state_dict(**kwargs):
    torch.manual_seed(0)
    model = StackedHourglass(**kwargs)
    for name, tensor in model.state_dict().items():
        tensor.copy_(torch.randint(9, ()) if name.endswith('tracked') else torch.rand(tensor.shape))
    return {f'backbone.{name}': tensor for name, tensor in model.state_dict().items()}


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
        *((family, stacks, 1, 16) for family in FAMILIES for stacks in (1, 2, 4, 8)),
        ('princeton', 2, 1, 12),
        ('bearpaw', 2, 1, 21),
        ('bearpaw', 1, 8, 16),
        ('bearpaw', 2, 4, 16),
        ('bearpaw', 4, 2, 14),
    ],
)
def test_networks_that_are_recognised(tmp_path, golden, family, num_stacks, num_blocks, num_keypoints):
    tensors = hollow(restack(golden(family)[0], num_stacks, num_blocks, num_keypoints))
    network = read_network(save(tensors, tmp_path / 'bare.pt'))
    assert network.family.title == FAMILIES[family].title
    assert network.arguments == dict(
        num_stacks=num_stacks,
        num_keypoints=num_keypoints,
        depth=4,
        channels=256,
        num_blocks=(num_blocks, num_blocks),
        stem_channels=STEM[family],
    )


@families
@pytest.mark.parametrize('prefix', ['model.module.', 'module.', 'model.', ''])
def test_prefixes_and_wrappings(tmp_path, golden, family, prefix):
    tensors = hollow(restack(golden(family)[0], 1))
    first = read_network(save(tensors, tmp_path / 'a.pt'))
    named = {prefix + name: tensor for name, tensor in tensors.items()}
    for content in (named, dict(state_dict=named, optimizer=dict(state={}), epoch=3)):
        network = read_network(save(content, tmp_path / 'b.pt'))
        assert network.arguments == first.arguments and network.tensors.keys() == first.tensors.keys()


@families
def test_what_a_file_need_not_have(tmp_path, golden, family):
    tensors = fill(restack(golden(family)[0], 1))
    full = read_network(save(tensors, tmp_path / 'a.pt'))
    unused = {
        name.rpartition('.')[0]
        for name, tensor in tensors.items()
        if name.endswith('.skip_layer.conv.weight') and tensor.shape[0] == tensor.shape[1]
    }
    assert len(unused) == (15 if family == 'princeton' else 0)
    for name in [*tensors]:
        if name.endswith('num_batches_tracked') or name.rpartition('.')[0] in unused:
            del tensors[name]
    bare = read_network(save(tensors, tmp_path / 'b.pt'))
    assert bare.arguments == full.arguments and bare.tensors.keys() == full.tensors.keys()
    assert all(torch.equal(bare.tensors[name], tensor) for name, tensor in full.tensors.items())


@families
def test_configs_normalize_images_as_the_family(tmp_path, golden, family):
    source = save(fill(restack(golden(family)[0], 1)), tmp_path / "it's.pt")
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


def test_a_fork_that_normalizes_otherwise_is_recognised(tmp_path, golden):
    """fast-human-pose-estimation and DarkPose: bearpaw's names, HRNet's trainer, and ImageNet's mean."""
    tensors = fill(restack(golden('bearpaw')[0], 1))
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


def test_config_of_other_keypoints_says_that_the_dataset_does_not_fit(tmp_path, golden):
    shapes = restack(golden('bearpaw')[0], 1, num_keypoints=17)
    source = save(hollow(shapes), tmp_path / 'a.pt')
    line = convert_checkpoint(source, str(tmp_path / 'out.pth'))
    assert '1 stack, 17 keypoints' in line
    assert 'has 17 keypoints' in (tmp_path / 'out.py').read_text()
    model = MODELS.build(Config.fromfile(tmp_path / 'out.py').model)
    assert model.head.out_channels == model.backbone.num_keypoints == 17


@families
def test_from_theirs_to_ours_and_back(tmp_path, golden, family):
    theirs = {PREFIX[family] + name: tensor for name, tensor in fill(restack(golden(family)[0], 2)).items()}
    convert_checkpoint(save(theirs, tmp_path / 'a.pt'), str(tmp_path / 'b.pth'))
    convert_checkpoint(str(tmp_path / 'b.pth'), str(tmp_path / 'c.pt'), to=family)
    back = torch.load(tmp_path / 'c.pt', weights_only=True)['state_dict']
    assert back.keys() == theirs.keys()
    different = [name for name in theirs if not torch.equal(back[name], theirs[name])]
    # nothing but what Princeton's network keeps and never uses
    assert all('.skip_layer.' in name and not back[name].any() for name in different)
    assert len(different) == (58 if family == 'princeton' else 0)
    assert all(
        back[name].shape == theirs[name].shape and back[name].dtype == theirs[name].dtype for name in theirs
    )


@families
@pytest.mark.parametrize('kwargs', [dict(num_stacks=3, num_keypoints=5), dict(num_stacks=1, depth=2)])
def test_from_ours_to_theirs_and_back(tmp_path, family, kwargs):
    ours = our_state_dict(**SMALL[family], **kwargs)
    source = save(dict(state_dict=ours, meta={}), tmp_path / 'a.pth')
    convert_checkpoint(source, str(tmp_path / 'b.pt'), to=family)
    convert_checkpoint(str(tmp_path / 'b.pt'), str(tmp_path / 'c.pth'))
    back = torch.load(tmp_path / 'c.pth', weights_only=True)['state_dict']
    assert back.keys() == ours.keys()
    assert all(
        torch.equal(back[name], tensor) and back[name].dtype == tensor.dtype for name, tensor in ours.items()
    )


def test_several_blocks_go_to_bearpaw_only(tmp_path):
    ours = our_state_dict(**SMALL['bearpaw'], num_blocks=2, depth=2)
    source = save(dict(state_dict=ours), tmp_path / 'a.pth')
    convert_checkpoint(source, str(tmp_path / 'b.pt'), to='bearpaw')
    back = read_network(str(tmp_path / 'b.pt')).tensors
    assert all(torch.equal(back[name[len('backbone.') :]], tensor) for name, tensor in ours.items())
    one_stem = our_state_dict(**SMALL['princeton'], num_blocks=2, depth=2)
    with pytest.raises(InputError, match=r"num_blocks=\(2, 2\), which Princeton's PyTorch code cannot build"):
        convert_checkpoint(save(one_stem, tmp_path / 'c.pth'), str(tmp_path / 'd.pt'), to='princeton')
    assert not (tmp_path / 'd.pt').exists()


@families
def test_exported_checkpoints_have_what_their_programs_read(tmp_path, golden, family):
    shapes = golden(family)[0]
    source = save(our_state_dict(stem_channels=STEM[family]), tmp_path / 'a.pth')
    convert_checkpoint(source, str(tmp_path / 'b.pt'), to=family)
    content = torch.load(tmp_path / 'b.pt', weights_only=True)
    assert {name: list(tensor.shape) for name, tensor in content['state_dict'].items()} == {
        PREFIX[family] + name: shape for name, shape in shapes.items()
    }
    parameters = [
        torch.nn.Parameter(tensor)
        for name, tensor in content['state_dict'].items()
        if not re.search('running|tracked', name)
    ]
    optimizer = dict(princeton=torch.optim.Adam, bearpaw=torch.optim.RMSprop)[family](parameters, lr=1)
    optimizer.load_state_dict(content['optimizer'])
    sum(parameter.sum() for parameter in parameters).backward()
    optimizer.step()
    assert content['epoch'] == 0 and content['best_acc'] == 0


@pytest.mark.parametrize(
    'kwargs, family, message',
    [
        (SMALL['bearpaw'], 'princeton', r'stem_channels=\(4, 8, 16, 16\).*bearpaw can'),
        (SMALL['princeton'], 'bearpaw', 'princeton can'),
        (dict(channels=16, stem_channels=(4, 8, 8, 8, 16)), 'princeton', 'no known code base can'),
        (dict(SMALL['bearpaw'], num_blocks=(2, 1)), 'bearpaw', r'num_blocks=\(2, 1\)'),
        (dict(SMALL['princeton'], residual='postact'), 'princeton', 'ha(s|ve) another shape'),
        (
            dict(SMALL['princeton'], join='concat', out_channels=32),
            'princeton',
            r'features\.0\.0\.0\.norm1.* missing',
        ),
    ],
)
def test_networks_that_have_no_counterpart(tmp_path, kwargs, family, message):
    source = save(dict(state_dict=our_state_dict(depth=2, **kwargs)), tmp_path / 'a.pth')
    with pytest.raises(InputError, match=message):
        convert_checkpoint(source, str(tmp_path / 'b.pt'), to=family)
    assert [path.name for path in tmp_path.iterdir()] == ['a.pth']


def test_exported_networks_must_be_ours(tmp_path, golden):
    with pytest.raises(InputError, match="a checkpoint of bearpaw's pytorch-pose; give"):
        source = save(hollow(golden('bearpaw')[0]), tmp_path / 'a.pt')
        convert_checkpoint(source, str(tmp_path / 'b.pt'), to='bearpaw')
    ours = dict(
        our_state_dict(**SMALL['bearpaw'], depth=1), **{'head.multi_final_layers.0.weight': torch.zeros(3)}
    )
    with pytest.raises(InputError, match='head.multi_final_layers.0.weight is left over'):
        convert_checkpoint(save(ours, tmp_path / 'a.pt'), str(tmp_path / 'b.pt'), to='bearpaw')


def without(name):
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


@pytest.mark.parametrize(
    'family, change, message',
    [
        (
            'princeton',
            without('hgs.1.0.low2.low1.bn2.running_var'),
            r'hgs\.1\.0\.low2\.low1\.bn2\.running_var is missing',
        ),
        ('princeton', without('pre.4.conv3.conv.weight'), r'pre\.4\.conv3\.conv\.weight is missing'),
        ('princeton', without('pre.0.conv.weight'), r'pre\.0\.conv\.weight is missing'),
        ('princeton', without('outs.0.conv.weight'), r'outs\.0\.conv\.weight is missing'),
        ('bearpaw', without('hg.0.hg.0.3.0.conv1.weight'), r'hg\.0\.hg\.0\.3\.0\.conv1\.weight is missing'),
        (
            'bearpaw',
            lambda t: {name: tensor for name, tensor in t.items() if not name.startswith('hg.')},
            'no hourglass',
        ),
        ('bearpaw', without('layer1.0.conv3.weight'), r'layer1\.0\.conv3\.weight is missing'),
        ('bearpaw', without('score_.0.bias'), r'score_\.0\.bias is missing'),
        (
            'bearpaw',
            lambda t: dict(t, extra=torch.zeros(1), more=torch.zeros(1)),
            'extra, more are left over',
        ),
        (
            'princeton',
            lambda t: t | {f'hgs.2.{i}': torch.zeros(1) for i in range(5)},
            r'hgs\.2\.2 and 2 more are left over',
        ),
        (
            'bearpaw',
            lambda t: {**t, 'fc.1.0.weight': torch.zeros(256, 256)},
            r'fc\.1\.0\.weight \(256, 256\) for \(256, 256, 1, 1\) has another shape',
        ),
        (
            'bearpaw',
            lambda t: {**t, 'score.0.weight': torch.zeros(())},
            'num_keypoints is 0',
        ),
        (
            'princeton',
            lambda t: {**t, 'pre.4.skip_layer.conv.bias': torch.zeros(3)},
            'ha(s|ve) another shape',
        ),
        (
            'bearpaw',
            lambda t: {'conv1.weight': torch.zeros(8, 3, 7, 7), 'fc.bias': torch.zeros(3)},
            'conv1.weight, fc.b',
        ),
        (
            'princeton',
            lambda t: dict(model=t, epoch=3),
            'it holds no weights by name',
        ),
        ('princeton', lambda t: [t], 'it holds a list'),
        ('princeton', lambda t: {}, 'it holds no weights by name'),
        ('princeton', lambda t: our_state_dict(channels=16), 'a checkpoint of this package; give'),
    ],
)
def test_files_that_are_refused(tmp_path, golden, family, change, message):
    source = save(change(hollow(golden(family)[0])), tmp_path / 'a.pt')
    with pytest.raises(InputError, match=message):
        convert_checkpoint(source, str(tmp_path / 'out.pth'))
    assert [path.name for path in tmp_path.iterdir()] == ['a.pt']


@pytest.mark.parametrize('share', [0, 0.01, 0.5, 0.999])
def test_files_that_were_cut_off(tmp_path, share):
    content = open(save(our_state_dict(**SMALL['bearpaw'], depth=1), tmp_path / 'a.pth'), 'rb').read()
    (tmp_path / 'a.pth').write_bytes(content[: int(share * len(content))])
    for convert in (
        lambda: convert_checkpoint(str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth')),
        lambda: convert_checkpoint(str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth'), to='bearpaw'),
    ):
        with pytest.raises(InputError, match='cut off'):
            convert()
    assert [path.name for path in tmp_path.iterdir()] == ['a.pth']


def test_only_trusted_files_may_run_code(tmp_path, golden):
    content = dict(state_dict=hollow(restack(golden('bearpaw')[0], 1)), args=argparse.Namespace(lr=1))
    source = save(content, tmp_path / 'a.pt')
    with pytest.raises(InputError, match='could run code'):
        read_network(source)
    assert read_network(source, trust=True).arguments['num_stacks'] == 1


@pytest.mark.parametrize(
    'out, config_out, message',
    [
        ('out.pth', 'out.txt', 'must end in .py'),
        ('same.py', 'same.py', 'different files'),
        ('a.pt/out.pth', 'out.py', 'cannot be written'),
        ('out.pth', 'a.pt/out.py', 'cannot be written'),
        ('folder', 'out.py', 'no folders'),
        ('out.pth', 'folder.py', 'no folders'),
    ],
)
def test_outputs_that_cannot_be_written(tmp_path, golden, out, config_out, message):
    source = save(hollow(restack(golden('bearpaw')[0], 1)), tmp_path / 'a.pt')
    for folder in ('folder', 'folder.py'):
        (tmp_path / folder).mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        convert_checkpoint(source, str(tmp_path / out), config_out=str(tmp_path / config_out))
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_leaves_what_was_there(tmp_path, golden, monkeypatch):
    source = save(hollow(restack(golden('bearpaw')[0], 1)), tmp_path / 'a.pt')
    (tmp_path / 'out.pth').write_bytes(b'old')
    (tmp_path / 'out.py').write_bytes(b'old')
    resource = pytest.importorskip('resource')
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, limits[1]))
    try:
        with pytest.raises(InputError, match='out.pth cannot be written'):
            convert_checkpoint(source, str(tmp_path / 'out.pth'))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['a.pt', 'out.pth', 'out.py']
    assert (tmp_path / 'out.pth').read_bytes() == (tmp_path / 'out.py').read_bytes() == b'old'


def test_torch7_files(tmp_path):
    pytest.importorskip('torchfile', reason='the package torchfile is not installed')
    from torch7_files import Modules, first_version, postact_residual, save_torch7

    image = torch.rand(1, 3, 64, 64)
    network, heatmaps = first_version(Modules(), image, postact_residual, depth=2)
    save_torch7(tmp_path / 'a.t7', network)
    convert_checkpoint(str(tmp_path / 'a.t7'), str(tmp_path / 'b.pth'))
    config = Config.fromfile(tmp_path / 'b.py')
    assert config.model.data_preprocessor.mean == [0, 0, 0] and config.model.data_preprocessor.std == [
        255,
        255,
        255,
    ]
    model = MODELS.build(config.model).eval()
    model.load_state_dict(read_checkpoint(str(tmp_path / 'b.pth'))['state_dict'])
    with torch.no_grad():
        outputs = model.backbone(image)
    for ours, theirs in zip(outputs, heatmaps):
        assert (ours - theirs).abs().max() / theirs.std() < 1e-4
    assert len(outputs) == len(heatmaps) == 2


@pytest.fixture
def tool(monkeypatch, capsys):
    """The command line, in this process: (what it exits with, what it prints)."""

    def run(*args):
        monkeypatch.setattr('sys.argv', ['convert_checkpoint.py', *map(str, args)])
        code = None
        try:
            runpy.run_path(str(TOOL), run_name='__main__')
        except SystemExit as exit:
            code = exit.code
        return code, capsys.readouterr().out

    return run


def test_command_line(tmp_path, golden, tool):
    source = save(fill(restack(golden('princeton')[0], 1)), tmp_path / 'a.pt')
    code, text = tool(source, tmp_path / 'b.pth', '--config-out', tmp_path / 'c.py')
    assert code is None
    line = "Princeton's PyTorch code: 1 stack, 16 keypoints, 3,426,448 parameters"
    assert text == f'{line} -> {tmp_path / "b.pth"}, {tmp_path / "c.py"}\n'
    code, text = tool(tmp_path / 'b.pth', tmp_path / 'd.pt', '--to', 'princeton')
    assert code is None and (tmp_path / 'd.pt').exists()
    tool(tmp_path / 'd.pt', tmp_path / 'e.pth')
    assert Config.fromfile(tmp_path / 'e.py').model == Config.fromfile(tmp_path / 'c.py').model
    before = sorted(tmp_path.iterdir())
    code, text = tool(tmp_path / 'none.pt', tmp_path / 'f.pth')
    assert code.startswith('error: ') and '\n' not in code
    assert (
        tool(tmp_path / 'b.pth', tmp_path / 'f.pt', '--to', 'princeton', '--config-out', tmp_path / 'f.py')[0]
        == 2
    )
    assert tool(tmp_path / 'b.pth', tmp_path / 'f.pt', '--to', 'mmpose')[0] != 0
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
@families
def test_the_test_command_runs_what_was_written(tmp_path, golden, real_data, run, family):
    source = save(fill(golden(family)[0]), tmp_path / 'a.pt')
    code, text = run('tools/convert_checkpoint.py', source, tmp_path / 'b.pth')
    assert code == 0, text
    code, text = run(
        'tools/test.py',
        tmp_path / 'b.py',
        tmp_path / 'b.pth',
        '--work-dir',
        tmp_path / 'work',
        '--data-root',
        real_data('mpii_sample'),
    )
    assert code == 0, text
    assert 'Mean' in text and 'is missing' not in text
