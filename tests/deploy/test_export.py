import importlib.util
import inspect
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmpose.codecs import MSRAHeatmap
from torch import nn

from hg_plugin.deploy.export import (
    EXPORTERS,
    RTMLIB,
    Exported,
    MSRADecoder,
    PictureFormat,
    Translate,
    export,
    ncnn_runner,
)
from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.models.reparameterize import reparameterize
from hg_plugin.utils.errors import InputError

CONFIG = Path(__file__).parents[2] / 'configs/hg_2stack_mpii.py'
SIZE = 96, 64  # width and height, which differ so that none can be taken for the other
CODEC = dict(type='MSRAHeatmap', input_size=SIZE, heatmap_size=(24, 16), sigma=2)


@pytest.fixture
def onnx(onnx_export):
    return pytest.importorskip('onnx')


@pytest.fixture
def rtmlib(onnx_export):
    return pytest.importorskip('rtmlib')


def write_config(path, codec=CODEC, num_stacks=2, depth=1):
    """A small network's config."""
    affine = dict(type='TopdownAffine', input_size=codec['input_size'], use_udp=codec['type'] == 'UDPHeatmap')
    path.write_text(f"""
_base_ = {str(CONFIG)!r}
model = dict(
    backbone=dict(num_stacks={num_stacks}, channels=16, depth={depth}),
    head=dict(num_stages={num_stacks}, decoder=dict(_delete_=True, **{codec})))
val_pipeline = [dict(type='LoadImage'), dict(type='GetBBoxCenterScale'), {affine}, dict(type='PackPoseInputs')]
test_dataloader = dict(dataset=dict(pipeline=val_pipeline))
""")
    return str(path)


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """Config and checkpoint of a network whose batch norms have something to fold."""
    folder = tmp_path_factory.mktemp('trained')
    config = write_config(folder / 'small.py')
    init_default_scope('mmpose')  # before the fixture of every single test
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.5)
    torch.save(dict(state_dict=model.state_dict()), folder / 'small.pth')
    return config, str(folder / 'small.pth')


@torch.no_grad()
def heatmaps_of_torch(trained, image):
    model = PoseEstimator(*trained, device='cpu').model
    return model.head.forward(model.backbone(torch.from_numpy(image)))[-1].numpy()


def decoded_by_mmpose(heatmaps, codec=MSRAHeatmap(input_size=SIZE, heatmap_size=(24, 16), sigma=2)):
    keypoints, scores = zip(*map(codec.decode, heatmaps))
    return np.concatenate(keypoints), np.concatenate(scores)


def images(count, seed=0):
    """Blurred noise (count, 3, 64, 96), normalised."""
    noise = np.random.RandomState(seed).standard_normal((count, 8, 12, 3)).astype(np.float32)
    blurred = np.stack([cv2.resize(image, SIZE, interpolation=cv2.INTER_CUBIC) for image in noise])
    return blurred.transpose(0, 3, 1, 2).copy()


def check_metadata(values):
    values = {key: json.loads(value) for key, value in values.items()}
    assert values['input_size'] == [96, 64] and values['codec']['type'] == 'MSRAHeatmap'
    assert values['color'] == 'RGB'
    assert (values['mean'], values['std']) == ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
    assert len(values['keypoint_names']) == 16 and values['keypoint_names'][9] == 'head_top'
    assert [8, 9] in values['skeleton']


def test_onnx_computes_the_last_heatmaps_of_any_batch_with_fewer_operations(trained, onnx, tmp_path):
    import onnxruntime

    out = tmp_path / 'new' / 'small.onnx'
    differences = export(*trained, str(out))
    assert list(out.parent.iterdir()) == [out]
    assert 0 <= differences['heatmaps'] < 1e-4

    session = onnxruntime.InferenceSession(str(out))
    for count in (1, 5):
        image = images(count)
        expected = heatmaps_of_torch(trained, image)
        (found,) = session.run(['heatmaps'], {'image': image})
        assert found.shape == (count, 16, 16, 24)
        assert np.abs(found - expected).max() < 1e-4 * expected.std()

    model = onnx.load(str(out))
    onnx.checker.check_model(model, full_check=True)
    check_metadata({entry.key: entry.value for entry in model.metadata_props})
    nodes = model.graph.node
    kinds = [node.op_type for node in nodes]
    assert set(kinds) == {'Conv', 'Relu', 'BatchNormalization', 'Add', 'MaxPool', 'Resize'}
    assert (
        kinds.count('Resize') == 2 and kinds.count('MaxPool') == 1 + 2
    )  # one a stack, and the stem's pooling
    folded = reparameterize(PoseEstimator(*trained, device='cpu').model)
    assert kinds.count('Conv') == sum(isinstance(module, nn.Conv2d) for module in folded.modules())
    convolved = {node.output[0] for node in nodes if node.op_type == 'Conv'}
    assert not [
        node.name for node in nodes if node.op_type == 'BatchNormalization' and node.input[0] in convolved
    ]
    assert str(CONFIG.parents[1]).encode() not in out.read_bytes()


def test_appended_decoding_is_mmposes(trained, onnx, tmp_path):
    import onnxruntime

    out = tmp_path / 'small.onnx'
    assert set(export(*trained, str(out), decode=True)) == {'keypoints', 'scores'}
    session = onnxruntime.InferenceSession(str(out))
    for count in (1, 4):
        image = images(count, seed=1)
        keypoints, scores = session.run(['keypoints', 'scores'], {'image': image})
        expected_keypoints, expected_scores = decoded_by_mmpose(heatmaps_of_torch(trained, image))
        assert keypoints.shape == (count, 16, 2) and scores.shape == (count, 16)
        assert np.abs(keypoints - expected_keypoints).max() < 1e-3
        assert np.abs(scores - expected_scores).max() < 1e-5


@pytest.mark.parametrize('size', [(64, 64), (48, 64), (5, 3)])
def test_decoder_on_heatmaps_of_all_kinds(size):
    width, height = size
    codec = MSRAHeatmap(input_size=(4 * width, 4 * height), heatmap_size=size, sigma=2)
    random = np.random.RandomState(0)
    heatmaps = random.standard_normal((40, 16, height, width)).astype(np.float32)
    heatmaps[0] = -np.abs(heatmaps[0])  # no keypoint
    heatmaps[1] = 0
    heatmaps[2:5] = heatmaps[2:5].round()  # many equal peaks
    edges = np.array(
        [[x, y] for x in (0, 1, 2, width - 2, width - 1) for y in (0, 1, 2, height - 2, height - 1)]
    )
    for index, (x, y) in enumerate(edges):
        heatmaps[8 + index, :, y, x] += 10
    keypoints, scores = MSRADecoder(codec)(torch.from_numpy(heatmaps))
    expected_keypoints, expected_scores = decoded_by_mmpose(heatmaps, codec)
    assert (expected_keypoints[:2] == -4).all()
    assert np.abs(keypoints.numpy() - expected_keypoints).max() < 1e-3
    assert np.array_equal(scores.numpy(), expected_scores)


@pytest.mark.parametrize(
    'own',
    [
        PictureFormat('RGB', (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        PictureFormat('RGB', (112.302, 112.2, 110.3385), (255, 255, 255)),
        PictureFormat('BGR', (1, 2, 3), (4, 5, 6)),
    ],
)
def test_pictures_are_translated(own):
    pictures = 255 * torch.rand(2, 3, 8, 8)
    assert torch.allclose(
        Translate(RTMLIB, own)(RTMLIB.normalize(pictures)), own.normalize(pictures), atol=1e-5
    )


@pytest.mark.parametrize(
    'settings',
    [
        dict(bgr_to_rgb=True, mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0]),
        dict(mean=[0.0] * 3, std=[255.0] * 3),
        {},
    ],
    ids=str,
)
def test_pictures_are_normalised_as_by_the_configs_preprocessor(settings):
    preprocessor = MODELS.build(dict(type='PoseDataPreprocessor', **settings))
    picture = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    expected = preprocessor(dict(inputs=[picture], data_samples=[]))['inputs']
    own = PictureFormat.of_config(Config(dict(model=dict(data_preprocessor=settings))))
    assert torch.allclose(own.normalize(picture[None].float()), expected.float(), atol=1e-5)


@pytest.mark.filterwarnings('ignore:.torch.jit:DeprecationWarning')
@pytest.mark.parametrize('decode', [False, True])
def test_torchscript(trained, tmp_path, decode):
    out = str(tmp_path / 'small.pt')
    export(*trained, out, format='torchscript', decode=decode)
    metadata = dict.fromkeys(
        ('input_size', 'color', 'mean', 'std', 'keypoint_names', 'skeleton', 'codec'), ''
    )
    network = torch.jit.load(out, _extra_files=metadata)
    check_metadata(metadata)
    image = images(3)
    expected = heatmaps_of_torch(trained, image)
    found = network(torch.from_numpy(image))
    for a, b in zip(*(found, decoded_by_mmpose(expected)) if decode else ([found], [expected])):
        assert np.abs(a.numpy() - b).max() < 1e-3 * np.abs(b).max()


def test_ncnn(trained, onnx, tmp_path):
    ncnn = pytest.importorskip('ncnn')
    pytest.importorskip('pnnx')
    assert export(*trained, str(tmp_path / 'small.param'), format='ncnn')['heatmaps'] < 1e-4
    assert sorted(path.name for path in tmp_path.iterdir()) == ['small.bin', 'small.json', 'small.param']
    check_metadata(
        {key: json.dumps(value) for key, value in json.loads((tmp_path / 'small.json').read_text()).items()}
    )
    assert {'BatchNorm', 'ReLU'}.isdisjoint(
        (tmp_path / 'small.param').read_text().split()
    )  # all in convolutions
    picture = torch.from_numpy(images(1)).to(memory_format=torch.channels_last)
    found = ncnn_runner(str(tmp_path / 'small'), threads=1)(picture)
    assert np.abs(found.numpy() - heatmaps_of_torch(trained, images(1))).max() < 1e-4 * found.std()
    net = ncnn.Net()
    net.load_param(str(tmp_path / 'small.param'))
    net.load_model(str(tmp_path / 'small.bin'))
    for image in images(3):
        extractor = net.create_extractor()
        extractor.input('image', ncnn.Mat(image))
        status, found = extractor.extract('heatmaps')
        expected = heatmaps_of_torch(trained, image[None])[0]
        assert status == 0 and np.abs(np.array(found) - expected).max() < 1e-4 * expected.std()


def test_ncnn_without_a_decoding_and_when_pnnx_fails(trained, tmp_path, monkeypatch):
    for package in ('ncnn', 'pnnx'):
        pytest.importorskip(package)
    for option in ('decode', 'rtmlib'):
        with pytest.raises(InputError, match=f'--{option} needs operators that ncnn does not have'):
            export(*trained, str(tmp_path / 'small.param'), format='ncnn', **{option: True})
    monkeypatch.setattr(
        'hg_plugin.deploy.export.to_onnx', lambda *args: Exported({'.onnx': b'no network'}, None)
    )
    with pytest.raises(InputError, match='pnnx did not convert the network'):
        export(*trained, str(tmp_path / 'small.param'), format='ncnn')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'made', ['printf junk > model.ncnn.param; touch model.ncnn.bin', 'touch model.ncnn.param', 'exit 1']
)
def test_what_pnnx_makes_wrong_is_one_sentence(trained, tmp_path, monkeypatch, made):
    pytest.importorskip('ncnn')
    pnnx = pytest.importorskip('pnnx')
    (tmp_path / 'pnnx').write_text(f'#!/bin/sh\n{made}\n')
    (tmp_path / 'pnnx').chmod(0o755)
    monkeypatch.setattr('hg_plugin.deploy.export.to_onnx', lambda *args: Exported({'.onnx': b''}, None))
    for path, message in (
        (tmp_path / 'pnnx', 'ncnn cannot read|pnnx did not convert'),
        (tmp_path / 'none', 'pnnx did not run in the temporary folder'),
    ):
        monkeypatch.setattr(pnnx, 'EXEC_PATH', str(path))
        with pytest.raises(InputError, match=message):
            export(*trained, str(tmp_path / 'small.param'), format='ncnn')
        assert [path.name for path in tmp_path.iterdir()] == ['pnnx']


def test_files_of_others_are_not_replaced(trained, tmp_path):
    (tmp_path / 'small.json').write_text('mine')
    with pytest.raises(
        InputError, match='small.json, which goes with .*small.param, exists and belongs to something else'
    ):
        export(*trained, str(tmp_path / 'small.param'), format='ncnn')
    (tmp_path / 'folder.bin').mkdir()
    with pytest.raises(InputError, match='folder.bin cannot be written: it is a folder'):
        export(*trained, str(tmp_path / 'folder.xml'), format='openvino')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['folder.bin', 'small.json']


def test_openvino(trained, onnx, tmp_path):
    openvino = pytest.importorskip('openvino')
    export(*trained, str(tmp_path / 'small.xml'), format='openvino')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['small.bin', 'small.xml']
    model = openvino.Core().read_model(tmp_path / 'small.xml')
    check_metadata(model.get_rt_info('hg_plugin').value)
    image = images(3)
    expected = heatmaps_of_torch(trained, image)
    found = openvino.compile_model(model, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})(image)['heatmaps']
    assert np.abs(found - expected).max() < 1e-3 * expected.std()


def learn_by_heart(folder, data, count=3, steps=60):
    """Config and checkpoint of a network that knows the first persons of an MPII folder, and these
    persons."""
    codec = dict(type='MSRAHeatmap', input_size=(256, 256), heatmap_size=(64, 64), sigma=2)
    config = write_config(folder / 'learned.py', codec, num_stacks=1, depth=4)
    cfg = Config.fromfile(config)
    pipeline = [*cfg.test_dataloader.dataset.pipeline]
    pipeline.insert(-1, dict(type='GenerateTarget', encoder=codec))
    persons = DATASETS.build(
        dict(
            type='MPIIPoseDataset',
            data_root=str(data),
            ann_file='annotations/mpii_val.json',
            pipeline=pipeline,
            indices=count,
        )
    )
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    batch = model.data_preprocessor(pseudo_collate([persons[i] for i in range(count)]), training=True)
    target = torch.stack([sample.gt_fields.heatmaps for sample in batch['data_samples']])
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.015, total_steps=steps)
    for _ in range(steps):
        (heatmaps,) = model.backbone(batch['inputs'])
        # peaks count more, or empty heatmaps would be learned first
        loss = ((heatmaps - target).square() * (1 + 50 * target)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        model.backbone(batch['inputs'])
    torch.save(dict(state_dict=model.state_dict()), folder / 'learned.pth')
    return (config, str(folder / 'learned.pth')), [persons.get_data_info(i) for i in range(count)]


def test_rtmlib_finds_the_keypoints_of_the_pose_estimator_on_photographs(real_data, onnx, rtmlib, tmp_path):
    trained, persons = learn_by_heart(tmp_path, real_data('lspet_mpii'))
    out = str(tmp_path / 'learned.onnx')
    export(*trained, out, rtmlib=True)
    theirs = rtmlib.ViTPose(out, model_input_size=(256, 256), backend='onnxruntime')
    ours = PoseEstimator(*trained, device='cpu')
    found = 0
    for person in persons:
        picture = cv2.imread(person['img_path'])
        keypoints, scores = ours(picture, person['bbox'])
        their_keypoints, their_scores = theirs(picture, person['bbox'])
        assert np.linalg.norm(their_keypoints - keypoints, axis=2).max() < 0.5
        assert np.abs(their_scores - scores).max() < 1e-4
        seen = person['keypoints_visible'][0] > 0
        found += (np.linalg.norm(keypoints - person['keypoints'], axis=2)[0, seen] < 10).mean() / 3
    assert found > 0.6  # or it would be keypoints of nothing that agree


def test_rtmlibs_defaults_are_those_that_the_file_is_for(rtmlib):
    defaults = {
        name: parameter.default for name, parameter in inspect.signature(rtmlib.ViTPose).parameters.items()
    }
    assert (defaults['mean'], defaults['std']) == (RTMLIB.mean, RTMLIB.std)


UDP = dict(CODEC, type='UDPHeatmap')
UNBIASED = dict(CODEC, unbiased=True)


@pytest.mark.parametrize('codec', [UDP, UNBIASED], ids=lambda codec: codec['type'])
@pytest.mark.parametrize('option', ['decode', 'rtmlib'])
def test_codecs_that_cannot_be_decoded(trained, tmp_path, codec, option):
    config = write_config(tmp_path / 'other.py', codec)
    message = f'other.py: --{option} works for the codec MSRAHeatmap without unbiased, and this is .*{codec["type"]}'
    with pytest.raises(InputError, match=message):
        export(config, trained[1], str(tmp_path / 'small.onnx'), **{option: True})
    assert [path.name for path in tmp_path.iterdir()] == ['other.py']


def test_arguments_that_contradict_each_other(trained, tmp_path):
    with pytest.raises(InputError, match='exclude each other'):
        export(*trained, str(tmp_path / 'small.onnx'), decode=True, rtmlib=True)
    for format, name, suffix in (
        ('onnx', 'small.pth', '.onnx'),
        ('torchscript', 'small.onnx', '.pt'),
        ('openvino', 'small', '.xml'),
        ('ncnn', 'small.bin', '.param'),
    ):
        with pytest.raises(InputError, match=f'{name}: .* must end in {suffix}'):
            export(*trained, str(tmp_path / name), format=format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'format, checkpoint, out',
    [('torchscript', 'small.pt', 'small.pt'), ('openvino', 'small.bin', 'small.xml')],
)
def test_a_checkpoint_is_not_written_over(trained, tmp_path, format, checkpoint, out):
    source = tmp_path / checkpoint
    source.write_bytes(Path(trained[1]).read_bytes())
    with pytest.raises(InputError, match=f'{checkpoint} is the checkpoint, whose place'):
        export(trained[0], str(source), str(tmp_path / out), format=format)
    assert source.read_bytes() == Path(trained[1]).read_bytes()


def test_a_config_is_not_written_over(trained, tmp_path):
    config = tmp_path / 'small.json'
    Config.fromfile(trained[0]).dump(config)
    before = config.read_bytes()
    with pytest.raises(InputError, match='small.json is the config, whose place'):
        export(str(config), trained[1], str(tmp_path / 'small.param'), format='ncnn')
    assert config.read_bytes() == before


def test_a_file_that_differs_from_torch_is_not_written(trained, tmp_path, monkeypatch):
    to_torchscript, suffix = EXPORTERS['torchscript']

    def to_something_else(network, *args):
        network.backbone.network.stem_conv[0].weight.data *= 1.01
        return to_torchscript(network, *args)

    monkeypatch.setitem(EXPORTERS, 'torchscript', (to_something_else, suffix))
    out = tmp_path / 'small.pt'
    out.write_text('from before')
    with pytest.raises(InputError, match='was not written, because its heatmaps differ from torch'):
        export(*trained, str(out), format='torchscript')
    assert list(tmp_path.iterdir()) == [out] and out.read_text() == 'from before'


@pytest.mark.parametrize(
    'format, name, package',
    [
        ('onnx', 'small.onnx', 'onnxscript'),
        ('openvino', 'small.xml', 'openvino'),
        ('ncnn', 'small.param', 'pnnx'),
        ('ncnn', 'small.param', 'ncnn'),
    ],
)
def test_missing_packages_are_named(trained, tmp_path, monkeypatch, format, name, package):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        'importlib.util.find_spec', lambda name, *args: None if name == package else find_spec(name, *args)
    )
    with pytest.raises(InputError, match=f'pip install .*{package}'):
        export(*trained, str(tmp_path / name), format=format)
    assert not list(tmp_path.iterdir())


def test_a_torch_that_cannot_write_onnx(trained, tmp_path, monkeypatch, onnx):
    monkeypatch.setattr('hg_plugin.deploy.export.torch_before', lambda version: True)
    with pytest.raises(InputError, match='The export to ONNX needs torch 2.7, and this is '):
        export(*trained, str(tmp_path / 'small.onnx'))
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_written(trained, tmp_path):
    (tmp_path / 'file').write_text('')
    (tmp_path / 'folder.pt').mkdir()
    for out in (tmp_path / 'file/small.pt', tmp_path / 'folder.pt'):
        with pytest.raises(InputError, match=f'{out.name} cannot be written'):
            export(*trained, str(out), format='torchscript')
    assert sorted(path.name for path in tmp_path.iterdir()) == ['file', 'folder.pt']


def test_command_prints_the_differences_and_no_warnings(trained, onnx, run, tmp_path):
    code, out = run('tools/export.py', *trained, tmp_path / 'small.onnx', '--decode')
    assert code == 0, out
    begun, done = out.splitlines()
    assert re.search(r'differs from torch by at most \S+ in keypoints, \S+ in scores', done)
    assert (tmp_path / 'small.onnx').exists()


def test_users_mistake_is_one_sentence(trained, run, tmp_path):
    torch.save(dict(state_dict={'backbone.x': torch.ones(1)}), tmp_path / 'other.pth')
    code, out = run('tools/export.py', trained[0], tmp_path / 'other.pth', tmp_path / 'small.onnx')
    begun, error = out.splitlines()
    assert code == 1 and error.startswith('error: ') and "other.pth does not fit the config's model" in error
    assert not (tmp_path / 'small.onnx').exists()
