"""From a config file and command-line options to a stock MMEngine runner; what tools/train.py and tools/test.py share."""
import contextlib
import inspect
import os
import os.path as osp
import traceback
from argparse import ArgumentParser, Namespace

import torch
from mmengine.config import Config, DictAction
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, find_latest_checkpoint

from hg_plugin.environment import fit_optimizer_to_torch, start_cpu_processes, torch_before
from hg_plugin.utils.checkpoint import check_weights, read_checkpoint, weights_of
from hg_plugin.utils.errors import InputError

from .config_check import (
    CONFIG_ERRORS,
    building,
    check_kinds,
    check_sizes,
    check_training,
    config_mistake,
    read_config,
)


def add_common_options(parser: ArgumentParser) -> None:
    """The options that MMPose's train.py and test.py have in common, and ``--data-root``."""
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints (default: work_dirs/CONFIG)')
    parser.add_argument('--data-root', help="folder of the data set, instead of the config's")
    parser.add_argument('--show-dir', help='folder of drawn predictions, within the run\'s folder')
    parser.add_argument('--interval', type=int, default=1, help='draw every so many samples (default: 1)')
    parser.add_argument('--show', action='store_true', help='show drawn predictions in a window')
    parser.add_argument('--wait-time', type=float, default=1, help='seconds a window stays (default: 1)')
    parser.add_argument('--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='override settings of the config: KEY.KEY=VALUE ...')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher (default: none)')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch.distributed.launch')


def load_config(args: Namespace) -> Config:
    """Reads ``args.config`` and applies the options of :func:`add_common_options`.

    Raises:
        InputError: for a config file that is missing or wrong.
    """
    if args.interval < 1:
        raise InputError(f'--interval {args.interval}: give a whole number of at least 1.')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config)
    for option in args.cfg_options:
        key, equals, value = option.partition('=')
        if not equals:
            raise InputError(f'--cfg-options {option}: give KEY=VALUE, such as train_cfg.max_epochs=10.')
        try:
            cfg.merge_from_dict({key: DictAction._parse_iterable(value)})
        except RecursionError as error:  # MMEngine's parser does not end on dict(...)
            raise InputError(f'--cfg-options {option} is more than numbers, words and lists of them; write it into the config.') from error
        except (KeyError, TypeError, AssertionError, ValueError, AttributeError) as error:
            raise InputError(f'--cfg-options {option} does not fit {args.config}: {error}.') from error
    check_kinds(cfg)
    check_sizes(cfg)
    if not isinstance(cfg.get('compile'), (bool, dict, type(None))):
        raise InputError(f'compile is {cfg.compile!r}; give True, False or arguments of torch.compile, such as dict(mode=\'max-autotune\').')
    cfg.launcher = args.launcher
    if args.work_dir:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(args.config))[0])
    if args.data_root:
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if cfg.get(loader) is not None:
                cfg[loader].dataset.data_root = args.data_root
    if args.show or args.show_dir:
        cfg.default_hooks.visualization = dict(
            type='PoseVisualizationHook',
            enable=True,
            show=args.show,
            wait_time=args.wait_time,
            out_dir=args.show_dir,
            interval=args.interval)
    if not torch.cuda.is_available():
        if args.launcher == 'pytorch':
            start_cpu_processes(cfg)
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            if cfg.get(loader) is not None:
                cfg[loader].pin_memory = False
    fit_optimizer_to_torch(cfg)
    return cfg


def train(args: Namespace) -> None:
    """What tools/train.py does: MMPose's options ``--resume --amp --no-validate --auto-scale-lr`` applied to the config, and a training.

    Raises:
        InputError: for options, a config or a checkpoint that nothing can be trained with.
    """
    runner = train_runner(args)
    with building_late(args.config):
        runner.train()


def train_runner(args: Namespace) -> Runner:
    """The runner of :func:`train`; an :class:`InputError` where the config builds none."""
    cfg = load_config(args)
    if cfg.get('compile') and (cfg.model.get('backbone') or {}).get('with_cp') and torch_before('2.9'):
        # 2.7 and older count every batch twice in the running statistics; 2.8 was not tried
        raise InputError(f'compile and model.backbone.with_cp need torch 2.9 to work together, and this is {torch.__version__}; leave one of them out.')
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    check_training(cfg)
    if args.amp:
        if not torch.cuda.is_available():
            raise InputError('--amp needs a GPU, and torch finds none; leave it out.')
        wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
        if wrapper == 'AutocastOptimWrapper':
            cfg.optim_wrapper.dtype = 'bfloat16'
        elif wrapper in ('OptimWrapper', 'AmpOptimWrapper'):
            cfg.optim_wrapper.type = 'AmpOptimWrapper'
            cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
        else:
            raise InputError(f'--amp cannot be combined with optim_wrapper.type={wrapper} of {args.config}; leave one of them out.')
    if args.auto_scale_lr:
        if 'auto_scale_lr' not in cfg:
            raise InputError(f'--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in {args.config}.')
        cfg.auto_scale_lr.enable = True
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
        latest = find_latest_checkpoint(cfg.work_dir) if args.resume == 'auto' else args.resume
        return build_runner(cfg, args.config, latest, resume=True)
    return build_runner(cfg, args.config, cfg.get('load_from'), partly=True)


def build_runner(cfg: Config, config: str, checkpoint: str | None, resume: bool = False, partly: bool = False) -> Runner:
    """MMEngine's runner, after a look at the checkpoint that it will start from.

    MMEngine leaves what does not fit at its random values. Where training goes on, and to test, all must fit; where it starts from
    other weights (``load_from``), some may be new, as a head for other keypoints: ``partly``.

    Raises:
        InputError: for a config that builds no runner, and a checkpoint that cannot be read or does not fit.
    """
    # MMEngine fetches what is named by an address, such as https://, itself
    state = read_checkpoint(checkpoint) if checkpoint and '://' not in checkpoint else None
    if resume and state and not {'meta', 'optimizer', 'message_hub'} <= state.keys():
        raise InputError(f'{checkpoint} holds weights, but not the state of a training; start from it with '
                         f'--cfg-options load_from={checkpoint} instead of --resume.')
    try:
        os.makedirs(cfg.work_dir, exist_ok=True)
    except OSError as error:
        raise InputError(f'The work directory {cfg.work_dir} cannot be made: {error.strerror}; choose another --work-dir.') from error
    with building(config, 'model or runner'):
        runner = Runner.from_cfg(cfg)
    if state:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        weights = weights_of(state, checkpoint)
        if not partly:
            check_weights(model, weights, checkpoint)
        elif not any(weights.get(name) is not None and weights[name].shape == tensor.shape
                     for name, tensor in model.state_dict().items()):
            raise InputError(f'No weight in {checkpoint} (load_from) fits the model of {config}; give weights of such a network.')
    return runner


@contextlib.contextmanager
def building_late(config: str):
    """As :func:`building`, for a runner's start: MMEngine builds data sets, loops, optimisers and metrics only then. Other errors pass."""
    try:
        yield
    except (*CONFIG_ERRORS, RuntimeError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        builds = any(frame.filename == inspect.getfile(Runner) and frame.name.startswith('build_') for frame in frames)
        if not builds or isinstance(error, InputError):
            raise
        raise config_mistake(config, 'training or test', error) from error


def test(args: Namespace) -> dict[str, float]:
    """What tools/test.py does: a test with all of the checkpoint's weights. Returns the figures by name.

    Raises:
        InputError: for options, a config or a checkpoint that nothing can be tested with.
    """
    runner = test_runner(args)
    with building_late(args.config):
        return runner.test()


def test_runner(args: Namespace) -> Runner:
    """The runner of :func:`test`; an :class:`InputError` where the config builds none, and where the weights do not fit."""
    if args.dump and not args.dump.endswith(('.pkl', '.pickle')):
        raise InputError(f'--dump {args.dump}: the file must end in .pkl or .pickle.')
    if args.out and not args.out.endswith(('.json', '.yml', '.yaml', '.pkl')):
        raise InputError(f'--out {args.out}: the file must end in .json, .yml or .pkl.')
    for path in filter(None, (args.dump, args.out)):
        if not os.access(osp.dirname(osp.abspath(path)), os.W_OK):
            raise InputError(f'{path} cannot be written: its folder does not exist or is not writable.')
    cfg = load_config(args)
    if args.dump:
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
        cfg.test_evaluator = [*evaluators, dict(type='DumpResults', out_file_path=args.dump)]
    # the runner loads it itself, after EMAHook has made the model that it would load it into
    cfg.load_from, cfg.resume = args.checkpoint, False
    return build_runner(cfg, args.config, args.checkpoint)
