"""Networks as ONNX, TorchScript, OpenVINO or ncnn files, for programs that have neither MMPose nor this
package."""

import contextlib
import copy
import importlib.util
import io
import json
import logging
import os.path as osp
import re
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmpose.codecs import MSRAHeatmap
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hg_plugin import __version__
from hg_plugin.compat.torch import torch_before
from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.models.reparameterize import reparameterize
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.heatmaps import heatmap_peaks

# How far an exported file's outputs may be from torch's, as a share of their largest value.
TOLERANCE = 1e-3


class PictureFormat(NamedTuple):
    """How a network wants its pictures: (pixels 0..255 - mean) / std, with channels in the order of
    ``color``."""

    color: str
    mean: Sequence[float]
    std: Sequence[float]

    @classmethod
    def of_config(cls, cfg: Config) -> 'PictureFormat':
        """What the config's data preprocessor makes of pictures that are loaded as BGR."""
        settings = cfg.model.get('data_preprocessor') or {}
        swapped = settings.get('bgr_to_rgb') or settings.get('rgb_to_bgr')
        return cls(
            'RGB' if swapped else 'BGR', settings.get('mean') or (0,) * 3, settings.get('std') or (1,) * 3
        )

    def normalize(self, pictures: Tensor) -> Tensor:
        """BGR pixels (N, 3, H, W) to what the network wants."""
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return ((pictures if self.color == 'BGR' else pictures.flip(1)) - mean) / std


# rtmlib's heatmap estimator, ViTPose, by its defaults: pictures as OpenCV reads them, normalised as if they
# were RGB.
RTMLIB = PictureFormat('BGR', (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


class Translate(nn.Conv2d):
    """Pictures in one format to another: (N, 3, H, W) to (N, 3, H, W)."""

    def __init__(self, source: PictureFormat, target: PictureFormat):
        super().__init__(3, 3, 1)
        order = [0, 1, 2] if source.color == target.color else [2, 1, 0]
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (target.mean, target.std))
        from_mean, from_std = (
            torch.tensor(values, dtype=torch.float64)[order] for values in (source.mean, source.std)
        )
        self.weight.data.copy_((torch.eye(3)[order] * (from_std / std).view(3, 1))[..., None, None])
        self.bias.data.copy_((from_mean - mean) / std)


class LastHeatmaps(nn.Module):
    """A pose estimator's last heatmaps: (N, 3, H, W) to (N, K, H/4, W/4)."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def forward(self, image: Tensor) -> Tensor:
        return self.head.forward(self.backbone(image))[-1]


class MSRADecoder(nn.Module):
    """``MSRAHeatmap.decode`` of MMPose in torch: the peak, and a quarter pixel towards its higher neighbours.

    MMPose does not refine a peak on the border, nor in the second column or row.

    Args:
        codec: The codec, without ``unbiased``.
    """

    def __init__(self, codec: MSRAHeatmap):
        super().__init__()
        self.register_buffer('scale_factor', torch.from_numpy(codec.scale_factor))

    def forward(self, heatmaps: Tensor) -> tuple[Tensor, Tensor]:
        """(N, K, H, W) to keypoints (N, K, 2) in input pixels, negative where no value is positive; scores
        (N, K)."""
        height, width = heatmaps.shape[2:]
        values = heatmaps.flatten(2)
        scores, peaks = heatmap_peaks(heatmaps)
        x, y = peaks.unbind(dim=2)
        index = y * width + x

        def value_at(index: Tensor) -> Tensor:
            return values.gather(2, index.clamp(0, height * width - 1).unsqueeze(2)).squeeze(2)

        dx = (value_at(index + 1) - value_at(index - 1)).sign() * ((x > 1) & (x < width - 1) & (y > 0))
        dy = (value_at(index + width) - value_at(index - width)).sign() * (
            (y > 1) & (y < height - 1) & (x > 0)
        )
        return (peaks + 0.25 * torch.stack([dx, dy], dim=2)) * self.scale_factor, scores


class Redraw(nn.Module):
    """Decoded keypoints as heatmaps in which rtmlib's ViTPose finds just these keypoints, with their scores.

    ViTPose refines peaks as for the codec UDPHeatmap, and takes the middle of the outermost pixels for the
    crop's border; in heatmaps of the codec MSRAHeatmap its keypoints are off by up to a pixel, four of the
    input's. Before that it blurs a heatmap, mirrored at its border, which draws peaks near there outwards by
    a pixel or so. That is why these heatmaps are finer than the network's: half the size of the input.

    Args:
        input_size: (W, H) of the input in pixels.
    """

    def __init__(self, input_size: Sequence[int]):
        super().__init__()
        self.input_size = input_size

    def forward(self, decoded: tuple[Tensor, Tensor]) -> Tensor:
        """Keypoints (N, K, 2) in input pixels and scores (N, K) to heatmaps (N, K, H/2, W/2)."""
        keypoints, scores = decoded

        def bell(axis: int) -> Tensor:
            size = self.input_size[axis] // 2
            position = keypoints[..., axis, None] * ((size - 1) / self.input_size[axis])
            squares = (torch.arange(size, device=keypoints.device) - position).square()
            return torch.exp((squares.amin(dim=2, keepdim=True) - squares) / 2)

        return scores[..., None, None] * bell(1).unsqueeze(3) * bell(0).unsqueeze(2)


class Exported(NamedTuple):
    """A file's content by suffix, and a function from pictures to outputs that runs it as its readers
    would."""

    files: dict[str, bytes]
    run: Callable[[Tensor], list[Tensor]]


# what torch writes ONNX with, and what checks it
ONNX = ('onnx', 'onnxscript', 'onnxruntime')


def need_packages(what: str, *packages: str) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise InputError(
            f'{what} needs packages that this Python does not have; run: pip install {" ".join(missing)}'
        )


@contextlib.contextmanager
def exporters_quiet():
    """Exporters warn of what concerns their authors: operators of absent packages, deprecations inside
    torch."""
    logger = logging.getLogger('torch.onnx')
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)


def to_onnx(network: nn.Module, image: Tensor, outputs: Sequence[str], metadata: dict[str, str]) -> Exported:
    """ONNX with a dynamic batch, and ``metadata`` as its metadata_props; it runs in onnxruntime."""
    need_packages('The export to ONNX', *ONNX)
    if torch_before('2.7'):
        raise InputError(
            f'The export to ONNX needs torch 2.7, and this is {torch.__version__}; export where there is a newer one, which reads the same '
            'checkpoints.'
        )
    import onnxruntime

    program = torch.onnx.export(
        network,
        (image,),
        input_names=['image'],
        output_names=list(outputs),
        opset_version=18,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim('batch')},),
        verbose=False,
    )
    model = program.model_proto
    graph = model.graph
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]  # the paths of this machine, among other things
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=['CPUExecutionProvider'])

    def run(image: Tensor) -> list[Tensor]:
        return [torch.from_numpy(array) for array in session.run(None, {'image': image.numpy()})]

    return Exported({'.onnx': content}, run)


def to_torchscript(
    network: nn.Module, image: Tensor, outputs: Sequence[str], metadata: dict[str, str]
) -> Exported:
    """TorchScript, with ``metadata`` as its extra files."""
    traced = torch.jit.freeze(torch.jit.trace(network, image))
    buffer = io.BytesIO()
    torch.jit.save(traced, buffer, _extra_files=metadata)
    buffer.seek(0)
    loaded = torch.jit.load(buffer)

    def run(image: Tensor) -> list[Tensor]:
        result = loaded(image)
        return list(result) if isinstance(result, tuple) else [result]

    return Exported({'.pt': buffer.getvalue()}, run)


def to_openvino(
    network: nn.Module, image: Tensor, outputs: Sequence[str], metadata: dict[str, str]
) -> Exported:
    """OpenVINO's pair of files, by way of ONNX, with ``metadata`` in its rt_info under 'hg_plugin'."""
    need_packages('The export to OpenVINO', *ONNX, 'openvino')
    import openvino

    model = openvino.Core().read_model(to_onnx(network, image, outputs, {}).files['.onnx'])
    for key, value in metadata.items():
        model.set_rt_info(value, ['hg_plugin', key])
    with tempfile.TemporaryDirectory() as folder:
        path = osp.join(folder, 'model.xml')
        openvino.save_model(model, path, compress_to_fp16=False)
        files = {}
        for suffix in ('.bin', '.xml'):
            with open(osp.join(folder, f'model{suffix}'), 'rb') as file:
                files[suffix] = file.read()
        # by default, newer CPUs compute with less than float32
        compiled = openvino.compile_model(path, 'CPU', {'INFERENCE_PRECISION_HINT': 'f32'})

    def run(image: Tensor) -> list[Tensor]:
        return [torch.from_numpy(array) for array in compiled(image.numpy()).to_tuple()]

    return Exported(files, run)


def ncnn_runner(stem: str, threads: int = 0) -> Callable[[Tensor], Tensor]:
    """A function that runs STEM.param and STEM.bin in float32: pictures (N, 3, H, W), one after the other, to
    heatmaps (N, K, H/4, W/4).

    Args:
        stem: Path without the suffix.
        threads: At most so many. Defaults to 0: ncnn's choice.

    Raises:
        InputError: for files that ncnn cannot read.
    """
    import ncnn

    net = ncnn.Net()
    for option in ('use_fp16_packed', 'use_fp16_storage', 'use_fp16_arithmetic', 'use_bf16_storage'):
        setattr(net.opt, option, False)
    net.opt.num_threads = threads or net.opt.num_threads
    if net.load_param(f'{stem}.param') or net.load_model(f'{stem}.bin'):
        raise InputError(
            f'ncnn cannot read {stem}.param with its .bin; export them again, with versions of pnnx and ncnn that fit each other.'
        )

    def heatmaps(picture: Tensor) -> Tensor:
        array = np.ascontiguousarray(
            picture.numpy(), np.float32
        )  # kept until the end: ncnn.Mat does not own its pixels
        extractor = net.create_extractor()
        extractor.input('image', ncnn.Mat(array))
        status, found = extractor.extract('heatmaps')
        if status:
            raise InputError(f'ncnn cannot run {stem}.param with its .bin; export them again.')
        return torch.from_numpy(np.array(found))

    return lambda image: torch.stack([heatmaps(picture) for picture in image])


def norms_as_convolutions(network: nn.Module) -> nn.Module:
    """A copy whose batch norms are 1x1 convolutions of a channel each: those ncnn computes together with the
    ReLU behind them."""
    network = copy.deepcopy(network)
    for parent in list(network.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, _BatchNorm) and norm.running_var is not None:
                identity = nn.Conv2d(
                    norm.num_features, norm.num_features, 1, groups=norm.num_features, bias=False
                )
                nn.init.ones_(identity.weight)
                setattr(parent, name, fuse_conv_bn_eval(identity.eval(), norm))
    return network


def to_ncnn(network: nn.Module, image: Tensor, outputs: Sequence[str], metadata: dict[str, str]) -> Exported:
    """ncnn's pair of files, by way of ONNX and pnnx, and ``metadata`` as JSON, for which they have no room.
    They take one picture at a time.

    ncnn computes 3x3 convolutions by Winograd's algorithm, with fewer multiplications than the others make.
    """
    need_packages('The export to ncnn', *ONNX, 'ncnn', 'pnnx')
    import pnnx

    try:
        with tempfile.TemporaryDirectory() as folder:
            with open(osp.join(folder, 'model.onnx'), 'wb') as file:
                file.write(to_onnx(norms_as_convolutions(network), image, outputs, {}).files['.onnx'])
            height, width = image.shape[2:]
            pnnx_run = subprocess.run(
                [pnnx.EXEC_PATH, 'model.onnx', f'inputshape=[1,3,{height},{width}]', 'fp16=0'],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stem = osp.join(folder, 'model.ncnn')
            if pnnx_run.returncode or not (osp.exists(f'{stem}.param') and osp.exists(f'{stem}.bin')):
                raise InputError('pnnx did not convert the network; try another version of it.')
            with open(f'{stem}.param') as file:
                graph = file.read()
            for name, pnnx_name in (
                ('image', 'in0'),
                *((output, f'out{index}') for index, output in enumerate(outputs)),
            ):
                graph = re.sub(rf'\b{pnnx_name}\b', name, graph)
            with open(f'{stem}.param', 'w') as file:
                file.write(graph)
            with open(f'{stem}.bin', 'rb') as file:
                weights = file.read()
            heatmaps = ncnn_runner(stem)
    except OSError as error:  # or it would be taken for one of the files to write
        raise InputError(
            f'pnnx did not run in the temporary folder {tempfile.gettempdir()}: {error.strerror}; install pnnx again, or '
            'make room there.'
        ) from error
    values = {key: json.loads(value) for key, value in metadata.items()}
    files = {'.bin': weights, '.json': json.dumps(values, indent=2).encode(), '.param': graph.encode()}
    return Exported(files, lambda image: [heatmaps(image)])


# by format: the function, and the suffixes of what it makes, the first of which a user names
EXPORTERS = dict(
    onnx=(to_onnx, '.onnx'),
    torchscript=(to_torchscript, '.pt'),
    openvino=(to_openvino, '.xml', '.bin'),
    ncnn=(to_ncnn, '.param', '.bin', '.json'),
)


def describe(cfg: Config, meta: dict, pictures: PictureFormat) -> dict[str, str]:
    """What a program must know to use a file, as JSON by name: see :func:`export`. ``meta`` is MMPose's
    metainfo."""
    values = dict(
        hg_plugin=__version__,
        input_size=cfg.model.head.decoder.input_size,
        **pictures._asdict(),
        keypoint_names=[meta['keypoint_id2name'][index] for index in range(meta['num_keypoints'])],
        skeleton=meta['skeleton_links'],
        codec=cfg.model.head.decoder,
    )
    return {key: json.dumps(value) for key, value in values.items()}


def largest_differences(
    outputs: Sequence[str], found: Sequence[Tensor], expected: Sequence[Tensor], most_wrong: float, out: str
) -> dict[str, float]:
    """By output.

    Raises:
        InputError: where more than a share ``most_wrong`` of the values differ by more than rounding.
    """
    differences = {}
    for name, a, b in zip(outputs, found, expected):
        difference, reach = (a - b).abs(), b.abs().max()
        differences[name] = float(difference.max())
        if (~(difference <= TOLERANCE * reach)).float().mean() > most_wrong:
            raise InputError(
                f'{out} was not written, because its {name} differ from torch by up to '
                f'{differences[name]:.3g}, where they reach {float(reach):.3g}; try other versions of the '
                'packages that make and run it.'
            )
    return differences


@torch.no_grad()
def export(
    config: str, checkpoint: str, out: str, format: str = 'onnx', decode: bool = False, rtmlib: bool = False
) -> dict[str, float]:
    """Writes a trained network to a file, folded for inference, after comparing what the file computes with
    torch.

    The file's input ``image`` is float32 (N, 3, H, W) of any N, for ncnn (3, H, W); its output ``heatmaps``
    (N, K, H/4, W/4) are the last stack's, of one pass: the flip test is left to the program. It carries, each
    as JSON, ``input_size`` [W, H], ``color`` ('RGB' or 'BGR'), ``mean`` and ``std`` (the input is (pixels
    0..255 - mean) / std), ``keypoint_names``, ``skeleton`` (pairs of indices), ``codec`` and ``hg_plugin``,
    the version.

    Args:
        config: Config file with a :class:`StackedHourglass`.
        checkpoint: Its trained weights.
        out: The file to write: .onnx, .pt for TorchScript, .xml for OpenVINO, which gets a .bin beside it, or
            .param for ncnn, which gets a .bin and, with what the others carry, a .json.
        format: 'onnx', 'torchscript', 'openvino' or 'ncnn'. Defaults to 'onnx'.
        decode: Append the decoding: the outputs are ``keypoints`` (N, K, 2) in input pixels and ``scores``
            (N, K). Only for the codec MSRAHeatmap without ``unbiased``, and not for ncnn. Defaults to False.
        rtmlib: Fit rtmlib's ViTPose with its default arguments, which hands over pictures as OpenCV reads
            them, BGR,
            but normalised as if they were RGB, and decodes heatmaps of another kind: the file swaps the
            channels itself, and its heatmaps are drawn from the decoded keypoints, see :class:`Redraw`. Only
            for the codec of ``decode``. Defaults to False.

    Returns:
        The largest difference between file and torch, by output.

    Raises:
        InputError: for arguments that contradict each other or the config, files that are missing, wrong or
            cannot be written, and packages that are missing.
    """
    to_format, *suffixes = EXPORTERS[format]
    stem, suffix = osp.splitext(out)
    if suffix != suffixes[0]:
        raise InputError(f'{out}: the name of a file for {format} must end in {suffixes[0]}.')
    paths = [f'{stem}{suffix}' for suffix in suffixes]
    for path in paths:
        if osp.isdir(path):
            raise InputError(f'{path} cannot be written: it is a folder; choose another name.')
        for what, source in (('config', config), ('checkpoint', checkpoint)):
            if osp.realpath(path) == osp.realpath(source):
                raise InputError(
                    f'{path} is the {what}, whose place the export would take; choose another name.'
                )
    for path in paths[1:]:
        if osp.exists(path) and not osp.exists(out):
            raise InputError(
                f'{path}, which goes with {out}, exists and belongs to something else; choose another name.'
            )
    if decode and rtmlib:
        raise InputError(
            '--decode and --rtmlib exclude each other, because rtmlib decodes itself; leave one out.'
        )
    if (decode or rtmlib) and format == 'ncnn':
        raise InputError(
            f'--{"decode" if decode else "rtmlib"} needs operators that ncnn does not have; leave it out, and '
            'decode the heatmaps.'
        )
    estimator = PoseEstimator(config, checkpoint, device='cpu')
    model, codec, cfg = estimator.model, estimator.model.head.decoder, Config.fromfile(config)
    if (decode or rtmlib) and not (isinstance(codec, MSRAHeatmap) and not codec.unbiased):
        raise InputError(
            f'{config}: --{"decode" if decode else "rtmlib"} works for the codec MSRAHeatmap without '
            f'unbiased, and this is {dict(cfg.model.head.decoder)}; export the heatmaps.'
        )

    own = PictureFormat.of_config(cfg)
    pictures = RTMLIB if rtmlib else own
    outputs = ['keypoints', 'scores'] if decode else ['heatmaps']
    network = LastHeatmaps(reparameterize(model))
    if decode:
        network = nn.Sequential(network, MSRADecoder(codec))
    if rtmlib:
        redraw = Redraw(codec.input_size)
        network = nn.Sequential(Translate(RTMLIB, own), network, MSRADecoder(codec), redraw)
    network.to(memory_format=torch.contiguous_format).eval()

    metadata = describe(cfg, estimator.dataset_meta, pictures)
    # blurred noise: as in pictures, pixels have something to do with their neighbours
    width, height = codec.input_size
    noise = 255 * torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    sample = F.interpolate(noise, (height, width), mode='bilinear')
    expected = [model.head.forward(model.backbone(own.normalize(sample)))[-1]]
    if decode or rtmlib:
        decoded = [codec.decode(heatmaps.numpy()) for heatmaps in expected[0]]
        expected = [torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*decoded)]
    if rtmlib:
        expected = [redraw(expected)]

    with contextlib.ExitStack() as stack:
        # opened before the work, which is in vain for a folder that cannot be written to
        files = {suffix: stack.enter_context(atomic_write(f'{stem}{suffix}')) for suffix in suffixes}
        with exporters_quiet():
            exported = to_format(network, pictures.normalize(sample[:2]), outputs, metadata)
            found = exported.run(pictures.normalize(sample))
        # rounding may make another one of two equal values the peak, which moves a keypoint
        most_wrong = 0.05 if decode or rtmlib else 0.0
        differences = largest_differences(outputs, found, expected, most_wrong, out)
        for suffix, file in files.items():
            file.write(exported.files[suffix])
    return differences
