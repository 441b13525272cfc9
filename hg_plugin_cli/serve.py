"""Find keypoints on a page in a browser of this machine.

    hg_plugin serve                       # the network of the package
    hg_plugin serve CONFIG.py CHECKPOINT

Drop a photo or use the camera, drag a box around each person, and see skeletons and the heatmaps of every
stage. The page is on 127.0.0.1, and nothing leaves the machine. It needs Gradio:
pip install gradio gradio_image_annotation
"""

from argparse import ArgumentError


def add_arguments(parser):
    add = parser.add_argument
    text = 'a network of hg_plugin weights, or config and checkpoint (default: the network of the package)'
    add('weights', nargs='*', help=text)
    add('--port', type=int, default=7860, help='of the page')
    add('--max-mb', type=float, default=20, metavar='MB', help='largest file')
    add('--max-megapixels', type=float, default=50, metavar='N', help='largest image, in 1e6 pixels')
    add('--device', help='cpu, cuda, cuda:1, ...; default: a GPU if torch can use one')


def run(args):
    from hg_plugin.compat.glibc import keep_freed_memory
    from hg_plugin.inference.pose_estimator import PoseEstimator
    from hg_plugin.inference.serve import serve

    if len(args.weights) > 2:
        raise ArgumentError(None, 'give a network of hg_plugin weights, config and checkpoint, or nothing')
    keep_freed_memory()
    estimator = PoseEstimator(*args.weights, device=args.device, bfloat16=True)
    serve(estimator, port=args.port, max_megabytes=args.max_mb, max_megapixels=args.max_megapixels)
