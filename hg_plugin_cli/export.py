"""Export a trained network, folded for inference, to a file that runs without MMPose.

    hg_plugin export CONFIG CHECKPOINT OUT.onnx [--decode]
    hg_plugin export OUT.onnx                               # the network of the package, or one by its name

In 8 bits, for CPUs that are fast at it, calibrated on some dozens of photographs of persons; and for any
size, so that the file also finds persons:

    hg_plugin export CONFIG CHECKPOINT OUT.onnx --int8 IMAGE... --dynamic

For rtmlib's ViTPose class, which passes BGR images normalized as if they were RGB, and decodes as for the
codec UDPHeatmap, so that keypoints from the plain heatmaps are many pixels off:

    hg_plugin export CONFIG CHECKPOINT OUT.onnx --rtmlib
    >>> estimator = rtmlib.ViTPose('OUT.onnx', model_input_size=(256, 256), backend='onnxruntime')
    >>> keypoints, scores = estimator(cv2.imread('image.jpg'), boxes)
"""

from argparse import ArgumentError

from .arguments import add_cfg_options

FORMATS = dict(
    torchscript='TorchScript instead of ONNX',
    openvino='OpenVINO instead of ONNX: also writes a .bin beside OUT.xml',
    ncnn='ncnn instead of ONNX, the fastest float32 on CPUs: also writes a .bin and a .json beside OUT.param',
)


def add_arguments(parser):
    add = parser.add_argument
    text = (
        'config and checkpoint, or the name of a network of the package (default: the one of the package); '
        'file to write: .onnx, .pt with --torchscript, .xml with --openvino, .param with --ncnn'
    )
    add('network', nargs='*', metavar='CONFIG CHECKPOINT | NAME', help=text)
    add('out', metavar='OUT', help='see above')
    kind = parser.add_mutually_exclusive_group()
    for name, text in FORMATS.items():
        kind.add_argument(f'--{name}', dest='format', action='store_const', const=name, help=text)
    text = 'ONNX in 8 bits, calibrated on these images or folders'
    kind.add_argument('--int8', nargs='+', metavar='IMAGE', help=text)
    add('--decode', action='store_true', help='output keypoints in input pixels, and scores')
    add('--rtmlib', action='store_true', help="fit rtmlib's ViTPose class, see above")
    add('--dynamic', action='store_true', help='for any height and width that are multiples of 64')
    add_cfg_options(parser)


def run(args):
    from hg_plugin.deploy.export import export

    if len(args.network) > 2:
        raise ArgumentError(
            None, f'give a config, a checkpoint and a file, not {len(args.network) + 1} files'
        )
    args.config, args.checkpoint = [*args.network, None, None][:2]
    print(f'Exporting to {args.out}; the largest networks take a minute or two ...', flush=True)
    kind = 'int8' if args.int8 else args.format or 'onnx'
    options = {key: value for key, value in vars(args).items() if key not in ('int8', 'format', 'network')}
    result = export(**options, format=kind, calibration_images=args.int8)
    if args.int8:
        text = f"on these images {result['peaks']:.1%} of its peaks lie within a pixel of float32's heatmaps"
    else:
        largest = ', '.join(f'{value:.2g} in {name}' for name, value in result.items())
        text = f'it differs from torch by at most {largest}'
    print(f'{args.out}: written; {text}.')
