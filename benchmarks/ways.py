"""The ways to run a network that inference.py measures."""

import contextlib
import copy
import os
import os.path as osp
import shutil
from functools import partial

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from networks import MMPOSE, mmpose_config
from tables import make_miniature

from hg_plugin.compat.glibc import keep_freed_memory
from hg_plugin.deploy.decoding import LastHeatmaps
from hg_plugin.deploy.export import export
from hg_plugin.deploy.ncnn import ncnn_runner
from hg_plugin.deploy.openvino import core as openvino_core
from hg_plugin.models.reparameterize import reparameterize
from hg_plugin.utils.errors import InputError, need_packages


class Networks:
    """The network in all the forms that the ways start from.

    Args:
        config, checkpoint: The trained network; random weights without a checkpoint.
        images: What int8 is calibrated on.
        folder: Where exported files go.
        threads: Of the back ends that ask for a number.
        device: Of the ways to run the network on a GPU.
        miniature: Networks of a few channels.
    """

    def __init__(self, config, checkpoint, images, folder, threads, device='cpu', miniature=False):
        self.config, self.images, self.folder, self.threads, self.device = (
            config,
            images,
            folder,
            threads,
            torch.device(device),
        )
        cfg, self.miniature = Config.fromfile(config), miniature
        if miniature:
            make_miniature(cfg)
        self.model = MODELS.build(cfg.model).eval()
        self.checkpoint = checkpoint or osp.join(folder, 'random.pth')
        if checkpoint is None:
            torch.save(self.model.state_dict(), self.checkpoint)
        state = torch.load(self.checkpoint, map_location='cpu')
        self.model.load_state_dict(state.get('state_dict', state))
        self.model.to(memory_format=torch.contiguous_format)
        self.files = {}

    def of_mmpose(self, name):
        """One of MMPose's networks in evaluation mode, and the width and height of its images."""
        cfg = mmpose_config(name)
        if self.miniature:
            make_miniature(cfg)
        return MODELS.build(cfg.model).eval(), cfg.codec['input_size']

    def file(self, kind):
        """The exported network: 'float32', 'int8' or 'ncnn', made when first asked for."""
        if kind not in self.files:
            out = osp.join(self.folder, f'{kind}.{"param" if kind == "ncnn" else "onnx"}')
            images = self.images if kind == 'int8' else None
            export(
                self.config,
                self.checkpoint,
                out,
                format='onnx' if kind == 'float32' else kind,
                calibration_images=images,
            )
            self.files[kind] = out
        return self.files[kind]


# The ways: each takes the networks and returns a function from images (N, 3, H, W) to the last heatmaps (N,
# K, H/4, W/4), or raises an InputError that says what is missing.


def eager(networks):
    return LastHeatmaps(networks.model)


def eager_channels_last(networks):
    return LastHeatmaps(copy.deepcopy(networks.model)).to(memory_format=torch.channels_last)


def reparameterized(networks):
    return LastHeatmaps(reparameterize(networks.model))


def bfloat16(networks):
    """As hg_plugin infer runs it where the CPU has instructions for it."""
    network = LastHeatmaps(reparameterize(networks.model))

    def run(image):
        with torch.autocast('cpu', torch.bfloat16):
            return network(image).float()

    return run


def memory_kept(networks):
    """As tools/infer.py runs it, with the memory of :func:`keep_freed_memory`, which a process of its own
    does not share with the others."""
    context = torch.multiprocessing.get_context('spawn')
    connection, other_end = context.Pipe()
    settings = networks.config, networks.checkpoint, networks.threads, networks.miniature
    context.Process(target=serve, args=(other_end, *settings), daemon=True).start()

    def run(image):
        connection.send(image)
        return connection.recv()

    return run


@torch.no_grad()
def serve(connection, config, checkpoint, threads, miniature):
    keep_freed_memory()
    torch.set_num_threads(threads)
    init_default_scope('mmpose')
    run = reparameterized(Networks(config, checkpoint, [], '', threads, miniature=miniature))
    with contextlib.suppress(EOFError):  # the other end was closed
        while True:
            connection.send(run(connection.recv()))


def compiled(networks):
    compiler = os.environ.get('CXX', 'g++')
    if not shutil.which(compiler):
        raise InputError(f'torch.compile needs the compiler {compiler}.')
    return torch.compile(LastHeatmaps(reparameterize(networks.model)), dynamic=False)


def onnx_runtime(networks, kind='float32'):
    need_packages('onnxruntime', 'onnxruntime')
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = networks.threads
    session = onnxruntime.InferenceSession(networks.file(kind), options, providers=['CPUExecutionProvider'])
    return lambda image: torch.from_numpy(session.run(None, {'image': image.numpy()})[0])


def openvino(networks, kind='float32', own_precision=False):
    need_packages('openvino', 'openvino')
    hints = dict(PERFORMANCE_HINT='LATENCY', INFERENCE_NUM_THREADS=networks.threads, NUM_STREAMS=1)
    if kind == 'float32' and not own_precision:
        hints.update(INFERENCE_PRECISION_HINT='f32')  # by default, newer CPUs compute with less
    request = openvino_core().compile_model(networks.file(kind), 'CPU', hints).create_infer_request()
    return lambda image: torch.from_numpy(request.infer({'image': image.numpy()}).to_tuple()[0].copy())


def ncnn(networks):
    return ncnn_runner(osp.splitext(networks.file('ncnn'))[0], networks.threads)


def of_mmpose(networks, name):
    """At its own size, whatever that of the images."""
    model, (width, height) = networks.of_mmpose(name)
    own = torch.randn(64, 3, height, width)

    def run(image):
        outputs = model(own[: len(image)], None, mode='tensor')
        return outputs if torch.is_tensor(outputs) else outputs[-1]

    return run


def on_gpu(networks, network, dtype=torch.float32, tf32=False, compiled=None, graphs=False):
    """The model's backbone ('trained'), its reparameterized copy or 'hourglass52' on the GPU.

    ``compiled`` is torch.compile's mode; with ``graphs``, CUDA graphs replay what torch's own kernels did.
    """
    if graphs and networks.device.type != 'cuda':
        raise InputError('CUDA graphs need a GPU.')
    model = networks.of_mmpose(network)[0] if network == 'hourglass52' else networks.model
    model = reparameterize(model) if network == 'reparameterized' else copy.deepcopy(model)
    network = LastHeatmaps(model).to(networks.device, dtype)
    network.to(memory_format=torch.channels_last if dtype == torch.bfloat16 else torch.contiguous_format)
    if compiled and networks.device.type == 'cuda':
        network = torch.compile(network, mode=compiled, dynamic=False)
    elif compiled:
        network = torch.compile(network, backend='aot_eager', dynamic=False)  # traces, and needs no compiler

    def run(image):
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = tf32
        if compiled == 'reduce-overhead':
            torch.compiler.cudagraph_mark_step_begin()
        return network(image.to(dtype))

    return recorded(run) if graphs else run


def recorded(run):
    """``run`` as CUDA graphs, one for each batch size, recorded at the first call with it; a call overwrites
    what the one before returned."""
    graphs = {}

    def replay(image):
        if image.shape not in graphs:
            given, stream = image.clone(), torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):  # cuDNN chooses its convolutions
                    run(given)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                heatmaps = run(given)
            graphs[image.shape] = graph, given, heatmaps
        graph, given, heatmaps = graphs[image.shape]
        given.copy_(image)
        graph.replay()
        return heatmaps

    return replay


CPU_WAYS = {
    'eager': eager,
    'eager, channels_last': eager_channels_last,
    'reparameterized': reparameterized,
    'reparameterized, bfloat16': bfloat16,
    'reparameterized, freed memory kept': memory_kept,
    'reparameterized, torch.compile': compiled,
    'ONNX Runtime': onnx_runtime,
    'OpenVINO': openvino,
    'OpenVINO, precision of its choice': partial(openvino, own_precision=True),
    'ncnn': ncnn,
    'int8, ONNX Runtime': partial(onnx_runtime, kind='int8'),
    'int8, OpenVINO': partial(openvino, kind='int8'),
    **{f'{title}, eager': partial(of_mmpose, name=name) for name, (title, _) in MMPOSE.items()},
}
BF16 = dict(dtype=torch.bfloat16)
# most worthy first: a time limit takes the last, which are compiled
GPU_WAYS = {
    'eager': partial(on_gpu, network='trained'),
    'reparameterized': partial(on_gpu, network='reparameterized'),
    'reparameterized, bf16, channels_last': partial(on_gpu, network='reparameterized', **BF16),
    'reparameterized, bf16, channels_last, CUDA graphs': partial(
        on_gpu, network='reparameterized', graphs=True, **BF16
    ),
    "MMPose's hourglass52, eager": partial(on_gpu, network='hourglass52'),
    'reparameterized, CUDA graphs': partial(on_gpu, network='reparameterized', graphs=True),
    'eager, TF32': partial(on_gpu, network='trained', tf32=True),
    'eager, bf16, channels_last': partial(on_gpu, network='trained', **BF16),
    'reparameterized, TF32': partial(on_gpu, network='reparameterized', tf32=True),
    'reparameterized, TF32, CUDA graphs': partial(on_gpu, network='reparameterized', tf32=True, graphs=True),
    "MMPose's hourglass52, TF32": partial(on_gpu, network='hourglass52', tf32=True),
    "MMPose's hourglass52, bf16, channels_last": partial(on_gpu, network='hourglass52', **BF16),
    'reparameterized, bf16, channels_last, compiled': partial(
        on_gpu, network='reparameterized', compiled='default', **BF16
    ),
    'reparameterized, bf16, channels_last, compiled with CUDA graphs': partial(
        on_gpu, network='reparameterized', compiled='reduce-overhead', **BF16
    ),
    'reparameterized, compiled': partial(on_gpu, network='reparameterized', compiled='default'),
    'reparameterized, TF32, compiled': partial(
        on_gpu, network='reparameterized', tf32=True, compiled='default'
    ),
}
