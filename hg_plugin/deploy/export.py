"""Export trained networks to files for programs that have neither MMPose nor this package."""

import json
import logging
import os.path as osp
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from mmpose.codecs import MSRAHeatmap, UDPHeatmap
from torch import nn

from hg_plugin import __version__
from hg_plugin.datasets.transforms import TopdownCrop
from hg_plugin.inference.inputs import find_inputs, is_video
from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.models.reparameterize import reparameterize
from hg_plugin.utils.errors import InputError, need_packages
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.progress import imap_with_progress
from hg_plugin.utils.weights import config_and_checkpoint

from .decoding import RTMLIB, ConvertFormat, ImageFormat, LastHeatmaps, MSRADecoder, Redraw, UDPDecoder
from .int8 import quantize
from .ncnn import to_ncnn
from .onnx import ONNX_PACKAGES, to_onnx
from .openvino import to_openvino
from .torchscript import to_torchscript

# To add a format, write its function in a file of its own and list it here with the suffixes of its files
# (first the one that the user names) and the packages that it needs. The function takes a network, an input
# (2, 3, H, W), the names of the outputs, metadata as JSON by name, and where sizes may be dynamic the number
# that divides them, or None. It returns the contents of the files by suffix, and a function that runs them:
# from inputs (N, 3, H, W) to a list of outputs.
EXPORTERS: dict[str, tuple[Callable, list[str], Sequence[str]]] = dict(
    onnx=(to_onnx, ['.onnx'], ONNX_PACKAGES),
    torchscript=(to_torchscript, ['.pt'], ()),
    openvino=(to_openvino, ['.xml', '.bin'], [*ONNX_PACKAGES, 'openvino']),
    ncnn=(to_ncnn, ['.param', '.bin', '.json'], [*ONNX_PACKAGES, 'ncnn', 'pnnx']),
    int8=(to_onnx, ['.onnx'], ONNX_PACKAGES),  # quantized after the comparison with torch
)


@torch.no_grad()
def export(
    config: str | None,
    checkpoint: str | None,
    out: str,
    *,
    format: str = 'onnx',
    decode: bool = False,
    rtmlib: bool = False,
    calibration_images: Sequence[str] | None = None,
    dynamic: bool = False,
    cfg_options: dict | None = None,
) -> dict[str, float]:
    """Export a trained network, folded for inference, after a comparison of the file's outputs with torch's.

    The input ``image`` is float32 (N, 3, H, W) with any N, or (3, H, W) for ncnn. The output ``heatmaps``
    (N, K, H/4, W/4) are the last stack's, without the flip test. The metadata, each as JSON, are
    ``input_size`` [W, H], ``color`` ('RGB' or 'BGR'), ``mean`` and ``std`` (the input is
    (pixels 0..255 - mean) / std), ``crop`` (how the input is cut from an image, see
    ``examples/onnx_runtime.py``: ``padding``, ``use_udp``, ``reduce``), ``keypoint_names``,
    ``unannotated_keypoints`` (indices), ``skeleton`` (pairs of indices), ``codec``, and ``hg_plugin``, the
    version.

    Args:
        config: Config file with a :class:`StackedHourglass`; None for the network of the package, or the name
            of one.
        checkpoint: Its trained weights; None for those of the package.
        out: File to write: .onnx, .pt for TorchScript, .xml for OpenVINO, which adds a .bin, or .param for
            ncnn, which adds a .bin and a .json with the metadata.
        format: 'onnx', 'torchscript', 'openvino', 'ncnn', or 'int8' for ONNX in 8 bits. Defaults to 'onnx'.
        decode: Append the decoding: the outputs are ``keypoints`` (N, K, 2) in input pixels and ``scores``
            (N, K). Not for ncnn, and only for MSRAHeatmap without ``unbiased`` and UDPHeatmap without
            offsets. Defaults to False.
        rtmlib: Fit rtmlib's ViTPose with its default arguments, which passes BGR images normalized as if they
            were RGB and decodes as for UDPHeatmap: the file swaps the channels and redraws its heatmaps, see
            :class:`Redraw`. Not for ncnn and int8, and only for MSRAHeatmap without ``unbiased``. Defaults to
            False.
        calibration_images: For int8: some dozens of photographs of persons, or folders of them. The persons
            that the network finds, or else the whole photograph, go through the pipeline of the config's
            ``test_dataloader``. Defaults to None.
        dynamic: Take inputs of any height and width that are multiples of 64 for a network of depth 4, of
            4 * 2^depth in general. Only for heatmaps in ONNX, also int8, and OpenVINO. Defaults to False.
        cfg_options: Settings to override in the config. Defaults to None.

    Returns:
        Largest difference between file and torch by output. For int8, ``peaks``: share of the keypoints of
        the calibration images within a pixel of float32's heatmaps.

    Raises:
        InputError: If an argument, file or package is wrong or missing, or the outputs differ from torch's.
    """
    # check everything that can be known before the work, which takes minutes for large networks
    config, checkpoint = map(str, config_and_checkpoint(config, checkpoint))
    stem, suffix = osp.splitext(out)
    if format not in EXPORTERS or suffix != EXPORTERS[format][1][0]:
        known = ', '.join(f'{suffixes[0]} for {key}' for key, (_, suffixes, _) in EXPORTERS.items())
        raise InputError(f'{out} does not fit the format {format}; the suffixes are {known}.')
    to_format, suffixes, packages = EXPORTERS[format]
    paths = {suffix: f'{stem}{suffix}' for suffix in suffixes}
    if osp.realpath(checkpoint) in map(osp.realpath, paths.values()):
        raise InputError(f'{checkpoint} is the checkpoint, which {out} would replace; choose another name.')
    if decode + rtmlib + dynamic + (format == 'ncnn') > 1 or (rtmlib and format == 'int8'):
        raise InputError(
            f'{out}: give only one of decode, rtmlib, dynamic and ncnn, and no rtmlib with int8.'
        )
    if dynamic and format == 'torchscript':
        raise InputError(f'{out}: only ONNX and OpenVINO can have a dynamic size; leave out the option.')
    if (format == 'int8') != bool(calibration_images):
        raise InputError(f'{out}: int8, and no other format, needs calibration images; give some dozens.')
    photographs = [path for path in find_inputs(calibration_images or ()) if not is_video(path)]
    estimator = PoseEstimator(config, checkpoint, device='cpu', cfg_options=cfg_options)
    model, cfg, meta = estimator.model, estimator.cfg, estimator.dataset_meta
    codec, decoded = model.head.decoder, decode or rtmlib
    settings = dict(cfg.model.head.get('decoder') or cfg.model.codec)
    is_msra = isinstance(codec, MSRAHeatmap) and not codec.unbiased
    is_udp = isinstance(codec, UDPHeatmap) and codec.heatmap_type == 'gaussian'
    if decoded and not (is_msra or is_udp):
        raise InputError(
            f'{config}: decode and rtmlib need the codec MSRAHeatmap without unbiased or UDPHeatmap, and '
            f'this is {settings}; export the heatmaps.'
        )
    need_packages(f'The export to {format}', *packages)
    persons = imap_with_progress(estimator.inputs, photographs, 1, 'photographs')
    calibration = [crop for crops in persons for crop in crops.split(1)] if photographs else []

    own = ImageFormat.of_config(cfg)
    images = RTMLIB if rtmlib else own
    layers = [LastHeatmaps(reparameterize(model))]
    if decoded:
        layers.append(MSRADecoder(codec) if is_msra else UDPDecoder(codec))
    if rtmlib:
        layers = [ConvertFormat(RTMLIB, own), *layers, Redraw(codec.input_size, is_udp)]
    network = nn.Sequential(*layers).to(memory_format=torch.contiguous_format).eval()
    outputs = ['keypoints', 'scores'] if decode else ['heatmaps']
    metadata = dict(
        hg_plugin=__version__,
        input_size=codec.input_size,
        **images._asdict(),
        crop=_crop(estimator),
        keypoint_names=[meta['keypoint_id2name'][index] for index in range(meta['num_keypoints'])],
        unannotated_keypoints=np.flatnonzero(~estimator.annotated).tolist(),
        skeleton=meta['skeleton_links'],
        codec=settings,
    )
    metadata = {key: json.dumps(value) for key, value in metadata.items()}

    # blurred noise: neighbouring pixels are correlated, as in images
    noise = 255 * torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def sample_of(size):
        sample = F.interpolate(noise, size, mode='bilinear')
        return sample, [model.head.forward(model.backbone(own.normalize(sample)))[-1]]

    sample, expected = sample_of(codec.input_size[::-1])
    comparisons = [(sample, expected)]
    if dynamic:
        multiple = model.backbone.size_divisor
        to_format = partial(to_format, multiple=multiple)
        comparisons += map(sample_of, [(multiple, 3 * multiple), (2 * multiple, multiple)])
    if decoded:
        arrays = zip(*(codec.decode(heatmaps.numpy()) for heatmaps in expected[0]))
        expected[:] = [torch.from_numpy(np.concatenate(array)).float() for array in arrays]
    if rtmlib:
        expected[:] = [layers[-1](expected)]

    with ExitStack() as stack, warnings.catch_warnings():
        # exporters warn of deprecations in torch and of packages that are not needed
        warnings.simplefilter('ignore')
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        files = {suffix: stack.enter_context(atomic_write(path)) for suffix, path in paths.items()}
        contents, run = to_format(network, images.normalize(sample[:2]), outputs, metadata)
        result = dict.fromkeys(outputs, 0.0)
        for sample, expected in comparisons:
            for name, a, b in zip(outputs, run(images.normalize(sample)), expected):
                largest, difference = b.abs().max().item(), (a - b).abs().max().item()
                result[name] = max(result[name], difference)
                wrong = ~torch.isclose(a, b, rtol=0, atol=1e-3 * largest)
                # keypoints may jump if rounding decides between two equal peaks
                if wrong.float().mean() > (0.05 if decoded else 0):
                    raise InputError(
                        f'{out} was not written, because its {name} differ from torch by up to '
                        f'{difference:.3g}, where they reach {largest:.3g}; install other versions of the '
                        'packages that write it.'
                    )
        if format == 'int8':
            contents['.onnx'], near = quantize(contents['.onnx'], calibration)
            result = dict(peaks=near)
        for suffix, file in files.items():
            file.write(contents[suffix])
    return result


def _crop(estimator: PoseEstimator) -> dict:
    """How the config's pipeline cuts a person from an image, for the metadata."""
    transforms = estimator.pipeline.transforms
    return dict(
        padding=next((transform.padding for transform in transforms if hasattr(transform, 'padding')), 1.0),
        use_udp=any(getattr(transform, 'use_udp', False) for transform in transforms),
        reduce=any(isinstance(transform, TopdownCrop) for transform in transforms),
    )
