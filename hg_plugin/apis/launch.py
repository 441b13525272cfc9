"""From a config file and command-line options to a stock MMEngine runner; what tools/train.py and tools/test.py share."""
import os
import os.path as osp
from argparse import ArgumentParser, Namespace

import torch
from mmengine.config import Config, DictAction
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner, find_latest_checkpoint

from ..environment import start_cpu_processes
from ..errors import InputError
from .checkpoint import check_weights, read_checkpoint
from .config import read_config


def add_common_options(parser: ArgumentParser) -> None:
    """The options that MMPose's train.py and test.py have in common, and ``--data-root``."""
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints (default: work_dirs/CONFIG)')
    parser.add_argument('--data-root', help="folder of the data set, instead of the config's")
    parser.add_argument('--show-dir', help='folder of drawn predictions, within the run\'s folder')
    parser.add_argument('--interval', type=int, default=1, help='draw every so many samples (default: 1)')
    parser.add_argument('--show', action='store_true', help='show drawn predictions in a window')
    parser.add_argument('--wait-time', type=float, default=1, help='seconds a window stays (default: 1)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='override settings of the config: KEY.KEY=VALUE ...')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher (default: none)')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by torch.distributed.launch')


def load_config(args: Namespace) -> Config:
    """Reads ``args.config`` and applies the options of :func:`add_common_options`.

    Raises:
        InputError: for a config file that is missing or wrong.
    """
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = read_config(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
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
    return cfg


def train_runner(args: Namespace) -> Runner:
    """The runner of tools/train.py: MMPose's options ``--resume --amp --no-validate --auto-scale-lr`` applied to the config."""
    cfg = load_config(args)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        if not torch.cuda.is_available():
            raise InputError('--amp needs a GPU, and torch finds none; leave it out.')
        wrapper = cfg.optim_wrapper.get('type', 'OptimWrapper')
        if wrapper not in ('OptimWrapper', 'AmpOptimWrapper'):
            raise InputError(f'--amp cannot be combined with optim_wrapper.type={wrapper} of {args.config}; leave one of them out.')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'auto_scale_lr' not in cfg:
            raise InputError(f'--auto-scale-lr needs auto_scale_lr = dict(base_batch_size=...) in {args.config}.')
        cfg.auto_scale_lr.enable = True
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
        latest = find_latest_checkpoint(cfg.work_dir) if args.resume == 'auto' else args.resume
        if latest is not None:
            read_checkpoint(latest)
    return Runner.from_cfg(cfg)


def test_runner(args: Namespace) -> Runner:
    """The runner of tools/test.py, with the checkpoint's weights loaded: all of them, or an :class:`InputError`."""
    if args.dump and not args.dump.endswith(('.pkl', '.pickle')):
        raise InputError(f'--dump {args.dump}: the file must end in .pkl or .pickle.')
    cfg = load_config(args)
    state = read_checkpoint(args.checkpoint)
    if args.dump:
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
        cfg.test_evaluator = [*evaluators, dict(type='DumpResults', out_file_path=args.dump)]
    runner = Runner.from_cfg(cfg)
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    check_weights(model, state.get('state_dict', state), args.checkpoint)
    runner.load_checkpoint(args.checkpoint)
    return runner
