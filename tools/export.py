#!/usr/bin/env python
"""Writes a trained network, folded for inference, to a file that runs without MMPose.

    python tools/export.py CONFIG CHECKPOINT OUT.onnx [--decode]

In 8 bits, for CPUs that are fast at it, after a look at some dozens of photographs with a person each:

    python tools/export.py CONFIG CHECKPOINT OUT.onnx --int8 PICTURE...

For rtmlib, with its own defaults (the plain heatmaps are not what it decodes):

    python tools/export.py CONFIG CHECKPOINT OUT.onnx --rtmlib
    >>> rtmlib.ViTPose('OUT.onnx', model_input_size=(256, 256),
    backend='onnxruntime')(cv2.imread('picture.jpg'), boxes)
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from hg_plugin.deploy.export import export
from hg_plugin.deploy.int8 import export_int8
from hg_plugin.utils.errors import command


@command
def main():
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        'out', help='file to write: .onnx, .pt with --torchscript, .xml with --openvino, .param with --ncnn'
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        '--torchscript',
        dest='format',
        action='store_const',
        const='torchscript',
        default='onnx',
        help='TorchScript instead of ONNX',
    )
    kind.add_argument(
        '--openvino',
        dest='format',
        action='store_const',
        const='openvino',
        help='OpenVINO instead of ONNX: also writes a .bin beside OUT.xml',
    )
    kind.add_argument(
        '--ncnn',
        dest='format',
        action='store_const',
        const='ncnn',
        help='ncnn instead of ONNX, the fastest in float32 on CPUs: also writes a .bin and a .json beside OUT.param',
    )
    kind.add_argument(
        '--int8', nargs='+', metavar='PICTURE', help='ONNX in 8 bits, calibrated on these photographs'
    )
    parser.add_argument(
        '--decode',
        action='store_true',
        help='append the decoding: keypoints in input pixels and scores come out',
    )
    parser.add_argument(
        '--rtmlib',
        action='store_true',
        help="fit rtmlib's ViTPose class: it hands over BGR pictures, normalised as if they were RGB, and decodes "
        'heatmaps as of the codec UDPHeatmap, so that keypoints from the plain heatmaps are many pixels off',
    )
    args = parser.parse_args()
    int8 = vars(args).pop('int8')
    if int8 and (args.decode or args.rtmlib):
        parser.error('--int8 writes heatmaps; leave out --decode and --rtmlib')
    print(f'Exporting to {args.out}; the largest networks take a minute or two ...', flush=True)
    if int8:
        near = export_int8(args.config, args.checkpoint, args.out, int8)
        print(
            f"{args.out}: written; on these pictures {near:.1%} of its peaks lie within a pixel of float32's."
        )
        return
    differences = export(**vars(args))
    print(
        f'{args.out}: written; it differs from torch by at most '
        f'{", ".join(f"{value:.2g} in {name}" for name, value in differences.items())}.'
    )


if __name__ == '__main__':
    main()
