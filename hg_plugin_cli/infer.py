"""Find the keypoints of persons in images, videos, folders of them, cameras and streams.

    hg_plugin infer image.jpg folder/ clip.mp4 --out-dir outputs        # the network of the package
    hg_plugin infer CONFIG.py CHECKPOINT image.jpg folder/ clip.mp4
    hg_plugin infer 0 --show                                            # a camera; Q or Esc ends it
    hg_plugin infer group.jpg --det-onnx yolox.onnx                     # boxes from a detector
    hg_plugin infer folder/ list.txt a.tar --out people.parquet         # very many: a row a person

This writes outputs/predictions/*.json, and images with skeletons to outputs/visualizations/. Files that
cannot be read are left out and listed at the end, with exit code 1. With --out, rows are all that is written.
"""

from argparse import ArgumentError

from .arguments import add_cfg_options


def add_arguments(parser):
    add = parser.add_argument
    text = (
        'config and checkpoint (default: the network of the package); image, video, folder of them, '
        'number of a camera, or address of a stream such as rtsp://...'
    )
    add('inputs', nargs='+', metavar='[CONFIG.py CHECKPOINT] input', help=text)
    add('--out-dir', default='outputs', metavar='DIR', help='folder of the results')
    boxes = parser.add_mutually_exclusive_group()
    text = (
        'boxes of persons in pixels, {"a.jpg": [[left, top, right, bottom], ...]}, by frame for a video, or '
        "COCO's detections"
    )
    boxes.add_argument('--boxes', metavar='FILE.json', help=text)
    sides = ('LEFT', 'TOP', 'RIGHT', 'BOTTOM')
    text = 'box of a person in pixels, in every input; may be repeated'
    boxes.add_argument('--box', type=float, nargs=4, action='append', metavar=sides, help=text)
    add('--det-config', metavar='FILE.py', help='config of an MMDetection detector of persons')
    add('--det-checkpoint', metavar='FILE.pth', help='its weights')
    add('--det-onnx', metavar='FILE.onnx', help='detector of persons like YOLOX or RTMDet, run by rtmlib')
    add('--det-thr', type=float, default=0.3, metavar='SCORE', help='lowest score of a detected person')
    add('--whole-image', action='store_true', help='without boxes, take every image as one person')
    add('--mmpose-json', action='store_true', help="write JSON as MMPose's inferencers do")
    add('--smooth', action='store_true', help='smooth keypoints over the frames of a video')
    add('--show', action='store_true', help='show skeletons in a window; Q or Esc ends a video')
    add('--heatmaps', action='store_true', help="also draw every stage's heatmaps: DIR/heatmaps")
    add('--no-draw', dest='draw', action='store_false', help='draw no skeletons')
    text = (
        'lowest score of a drawn keypoint (default: what 9 of 10 right ones reached in the last test, or 0.3)'
    )
    add('--kpt-thr', type=float, metavar='SCORE', help=text)
    add('--flip-test', action='store_true', help='average with the flipped image')
    text = 'average over crops of these sizes, such as 0.8 0.9 1 1.1 1.2 1.3'
    add('--scales', type=float, nargs='+', default=[1.0], metavar='SCALE', help=text)
    add('--batch-size', type=int, default=16, metavar='N', help='persons per batch')
    text = (
        'write a row a person to files in this folder; a run that was killed goes on, and a file that cannot '
        'be read is a row with its reason. Inputs are images, folders, tars, and .txt files that name them'
    )
    add('--out', metavar='NAME.jsonl|NAME.parquet', help=text)
    text = 'with --out, do the share I from 0 to N - 1 (default: by the rank of torchrun or Slurm, or all)'
    add('--shard', metavar='I/N', help=text)
    add('--images-per-part', type=int, default=1000, metavar='N', help='images per file of --out')
    add('--workers', type=int, default=2, metavar='W', help='processes that decode images for --out')
    text = (
        'what runs the network; onnxruntime and openvino export it first, to a file beside the checkpoint. A '
        'file that hg_plugin export wrote, such as one in 8 bits, is run by OpenVINO, or else ONNX Runtime'
    )
    add('--backend', default='torch', metavar='torch|onnxruntime|openvino|FILE.onnx', help=text)
    add('--float32', action='store_true', help='not in bfloat16 where the CPU has instructions for it')
    add('--device', help='cpu, cuda, cuda:1, ...; default: a GPU if torch can use one')
    add_cfg_options(parser)


def run(args):
    from hg_plugin.compat.glibc import keep_freed_memory
    from hg_plugin.deploy.backends import PoseEstimator
    from hg_plugin.inference.detectors import mmdet_detector, onnx_detector
    from hg_plugin.inference.files import infer_files
    from hg_plugin.inference.image_parts import local_device
    from hg_plugin.inference.inputs import find_inputs, output_names, stem_of
    from hg_plugin.inference.many import infer_many
    from hg_plugin.utils.errors import InputError

    keep_freed_memory()
    options = vars(args)
    box, config, checkpoint, onnx, det_thr = (
        options.pop(name) for name in ('box', 'det_config', 'det_checkpoint', 'det_onnx', 'det_thr')
    )
    if bool(config) != bool(checkpoint) or (config and onnx):
        raise ArgumentError(None, 'give --det-config with --det-checkpoint, or --det-onnx')
    args.boxes = args.boxes or box
    if args.out:
        if args.boxes or args.show or args.heatmaps or args.smooth or args.mmpose_json:
            others = '--boxes, --box, --show, --heatmaps, --smooth, --mmpose-json'
            raise ArgumentError(None, f'--out writes rows of what is found, and no more; leave out {others}')
        args.device = args.device or local_device()
    args.detector = None
    if onnx:
        args.detector = onnx_detector(onnx, args.device, det_thr)
    elif config:
        args.detector = mmdet_detector(config, checkpoint, args.device, det_thr)
    args.config, args.checkpoint = None, None
    if args.inputs[0].endswith('.py'):
        if len(args.inputs) < 3:
            raise ArgumentError(None, 'after a config, give a checkpoint and at least one input')
        args.config, args.checkpoint, *args.inputs = args.inputs
    if not args.out:
        args.inputs = inputs = find_inputs(args.inputs, args.out_dir)
    estimator = PoseEstimator(
        *(options.pop(name) for name in ('config', 'checkpoint', 'device', 'batch_size', 'cfg_options')),
        bfloat16=not options.pop('float32'),
        backend=options.pop('backend'),
    )
    many = {name: options.pop(name) for name in ('out', 'shard', 'images_per_part', 'workers')}
    if many['out']:
        options = {
            name: options[name] for name in ('inputs', 'detector', 'whole_image', 'flip_test', 'scales')
        }
        counts = infer_many(estimator, **options, **many)
        print(
            '{people} people in {images} images, {empty} without anybody and {unread} that cannot be read; '
            '{parts} parts, beside {before} that were there: {out}'.format_map(counts | many)
        )
        return
    left_out = infer_files(estimator, None, **options)

    for path, name in output_names(inputs, args.out_dir).items():
        if path not in left_out and name != stem_of(path):
            print(f'{path}: its results are called {name}, because another has the name {stem_of(path)}')
    if len(left_out) < len(inputs):
        print(f'{len(inputs) - len(left_out)} of {len(inputs)} files: the results are in {args.out_dir}')
    if len(inputs) == len(left_out) == 1:
        raise InputError(*left_out.values())
    if left_out:
        print(*left_out.values(), sep='\n')
        raise InputError(f'{len(left_out)} of {len(inputs)} files were left out, for the reasons above.')
