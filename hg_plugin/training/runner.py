"""Train and test with MMEngine's stock runner, from a config and options."""

import contextlib
import functools
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.visualization import LocalVisBackend

from hg_plugin.compat.distributed import start_processes
from hg_plugin.compat.glibc import keep_freed_memory
from hg_plugin.compat.torch import fit_optimizer_to_torch
from hg_plugin.engine.cuda_graph import GraphedStep
from hg_plugin.engine.resume.latest import read_training
from hg_plugin.engine.resume.lock import locked
from hg_plugin.engine.resume.processes import end_with_launcher
from hg_plugin.utils.checkpoint import check_weights, read_checkpoint, weights_of, write_kpt_thr
from hg_plugin.utils.config import LOADER, building, parts_of, read_config
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import DISK_ERRORS
from hg_plugin.utils.weights import FOLDER, checkpoint_path

from .config_check import check_config
from .runner_check import check_runner

# what MMEngine and torch say of themselves, or of a small machine, which no user has to act on
NOISE = ('"FileClient"', '"HardDiskBackend"', 'The prefix is not set')
WARNINGS = 'This DataLoader will create|Detected call of `scheduler.step'


class QuietRunner(Runner):
    """MMEngine's runner, whose environment, config and hooks go to the log file and not to the screen.

    A disk that takes no more or fails costs lines of logs, and not the training.
    """

    def setup_env(self, env_cfg: dict) -> None:
        super().setup_env(env_cfg)
        set_backends(env_cfg)
        warnings.filterwarnings('ignore', WARNINGS)

    def build_logger(self, *args, **kwargs):
        logger = super().build_logger(*args, **kwargs)
        logger.addFilter(lambda record: not record.getMessage().startswith(NOISE))
        for handler in logger.handlers:
            # no method of the runner, which holds a process group: loggers live as long as Python
            if isinstance(handler, logging.FileHandler):
                handler.handleError = functools.partial(_pass_over_disk_errors, handler.handleError)
            elif type(handler) is logging.StreamHandler:
                handler.addFilter(_is_short)
        return logger

    def load_checkpoint(self, *args, **kwargs) -> dict:
        with contextlib.redirect_stdout(io.StringIO()) as printed:  # weights that do not match
            checkpoint = super().load_checkpoint(*args, **kwargs)
        if printed.getvalue():
            self.logger.warning(printed.getvalue().strip())
        return checkpoint

    def _maybe_compile(self, target: str) -> None:
        super()._maybe_compile(target)
        if self.cfg.get('cuda_graph'):
            setattr(self.model, target, GraphedStep(getattr(self.model, target), self.optim_wrapper))

    def build_visualizer(self, visualizer=None):
        visualizer = super().build_visualizer(visualizer)
        for backend in visualizer._vis_backends.values():
            if isinstance(backend, LocalVisBackend):
                backend._dump = functools.partial(_dump_or_tell, backend._dump, self.logger)
        return visualizer


def set_backends(env_cfg: dict) -> None:
    """Set what torch does by two keys of a config's ``env_cfg``, where they are there.

    Args:
        env_cfg: ``tf32``: whether float32 convolutions and matrix products on a GPU may round their inputs to
            TensorFloat-32's 10-bit mantissa, which is several times faster; torch's default is True for
            convolutions and False for matrix products. ``keep_memory``: see :func:`keep_freed_memory`.
    """
    if 'tf32' in env_cfg:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = env_cfg['tf32']
    if env_cfg.get('keep_memory'):
        keep_freed_memory()


def _is_short(record: logging.LogRecord) -> bool:
    """Whether a message is a warning, or not longer than any table of metrics."""
    return record.levelno > logging.INFO or record.getMessage().count('\n') < 15


def _pass_over_disk_errors(stock, record: logging.LogRecord) -> None:
    # a traceback for every line otherwise; stdout has the lines
    if getattr(sys.exc_info()[1], 'errno', None) not in DISK_ERRORS:
        stock(record)


def _dump_or_tell(stock, logger: logging.Logger, scalars: dict, path: str, *args) -> None:
    try:
        stock(scalars, path, *args)
    except OSError as error:
        logger.warning(f'{path} is not complete: {error.strerror}. The training continues.')


def train(
    config: str | PathLike | Config,
    *,
    work_dir: str | None = None,
    data_root: str | None = None,
    cfg_options: dict | None = None,
    launcher: str = 'none',
    show_dir: str | None = None,
    resume: bool | str = False,
    amp: bool = False,
    validate: bool = True,
    auto_scale_lr: bool = False,
    hooks: Sequence[Hook] = (),
) -> torch.nn.Module:
    """Train a model.

    Args:
        config: Path of a config file, or a config.
        work_dir: Folder of logs and checkpoints. Defaults to the config's, or else to work_dirs/CONFIG.
        data_root: Folder of every dataset. Defaults to the config's.
        cfg_options: Settings to override, such as ``{'train_cfg.max_epochs': 10}``.
        launcher: What started the processes: 'none', 'pytorch', 'slurm' or 'mpi'. Defaults to 'none'.
        show_dir: Folder of drawn predictions, in that of the run. Defaults to None, no drawings.
        resume: True to continue from the latest checkpoint in ``work_dir``, or a checkpoint's path.
        amp: Train in mixed precision on a GPU. Defaults to False, as the config says.
        validate: Validate during the training. Defaults to True.
        auto_scale_lr: Scale the learning rate by the batch size over the config's
            ``auto_scale_lr.base_batch_size``. Defaults to False.
        hooks: Hooks beside those of the config. Defaults to none.

    Returns:
        The trained model.

    Raises:
        InputError: The config, an option or a checkpoint is wrong.
    """
    cfg = load_config(config, work_dir, data_root, cfg_options, launcher, show_dir)
    with building(cfg, 'training'):
        if not validate:
            cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        if amp:
            kind = cfg.optim_wrapper.get('type', 'OptimWrapper')
            kinds = ('AutocastOptimWrapper', 'AmpOptimWrapper', 'OptimWrapper')
            if kind not in kinds or not torch.cuda.is_available():
                raise InputError(f'amp needs a GPU and an optim_wrapper of {", ".join(kinds)}; leave it out.')
            cfg.optim_wrapper.update(dict(dtype='bfloat16') if kind == kinds[0] else dict(type=kinds[1]))
        if auto_scale_lr:
            if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
                raise InputError('The config has no auto_scale_lr = dict(base_batch_size=...); add it.')
            cfg.auto_scale_lr.enable = True
    if resume:
        # True: the runner finds the latest one, see hg_plugin.engine.resume
        cfg.resume, cfg.load_from = True, None if resume is True else resume
    checkpoint = _check(cfg, resume=bool(resume))
    first = launcher == 'none' or os.environ['RANK'] == '0'
    with _work_dir(cfg, lock=first), building(cfg, 'training', late=True):
        runner = _build_runner(cfg, checkpoint, partly=True)
        for hook in hooks:
            runner.register_hook(hook)
        check_runner(runner, 'train', 'val')
        return runner.train()


def test(config: str | PathLike | Config, checkpoint: str, *, dump: str | None = None, **options) -> dict:
    """Test a checkpoint, and return the metrics by name.

    Args:
        config: Path of a config file, or a config.
        checkpoint: Path of a checkpoint, which must have exactly the weights of the model.
        dump: A .pkl file to write all predictions to. Defaults to None.
        **options: work_dir, data_root, cfg_options, launcher and show_dir, as for :func:`train`.

    Raises:
        InputError: The config, an option or the checkpoint is wrong.
    """
    cfg = load_config(config, **options)
    if dump:
        metrics = cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]
        cfg.test_evaluator = [*metrics, dict(type='DumpResults', out_file_path=dump)]
    checkpoint = str(checkpoint_path(checkpoint))
    # the runner loads the weights after EMAHook has made the model that takes them
    cfg.load_from, cfg.resume = checkpoint, False
    content = _check(cfg)
    with _work_dir(cfg), building(cfg, 'test', late=True):
        runner = _build_runner(cfg, content)
        check_runner(runner, 'test')
        metrics = runner.test()
        _keep_kpt_thr(runner, checkpoint)
    drawing = cfg.get('default_hooks', {}).get('visualization') or {}
    if drawing.get('enable') and drawing.get('out_dir'):
        runner.logger.info(f'Drawn predictions are in {runner.log_dir}/{drawing["out_dir"]}.')
    return metrics


def _keep_kpt_thr(runner: Runner, checkpoint: str) -> None:
    """Write the score that a metric has measured beside the checkpoint, unless that is one of the package."""
    found = [getattr(metric, 'kpt_thr', None) for metric in runner.test_evaluator.metrics]
    if is_main_process() and any(found) and FOLDER not in Path(checkpoint).resolve().parents:
        try:
            kpt_thr = next(filter(None, found))
            path = write_kpt_thr(checkpoint, kpt_thr)
            runner.logger.info(f'Nine of ten right keypoints have a score of {kpt_thr:.2f} or more: {path}')
        except InputError as error:  # the folder may be read-only
            runner.logger.warning(str(error))


def load_config(config, work_dir=None, data_root=None, cfg_options=None, launcher='none', show_dir=None):
    """Return a config with the options that training and testing share, fitted to this machine."""
    cfg = read_config(config, data_root=data_root, cfg_options=cfg_options)
    cfg.work_dir = work_dir or cfg.get('work_dir') or f'work_dirs/{Path(cfg.filename or "run").stem}'
    cfg.launcher = launcher
    end_with_launcher()
    if launcher != 'none':
        try:
            start_processes(cfg)
        except ConnectionError as error:
            raise InputError(str(error)) from error
    with building(cfg, 'training or test'):
        if show_dir:
            drawing = dict(type='PoseVisualizationHook', enable=True, out_dir=show_dir)
            cfg.merge_from_dict({'default_hooks.visualization': drawing})
        for loader in parts_of(cfg, LOADER).values():
            if not torch.cuda.is_available():
                loader['pin_memory'] = False
            if loader.get('num_workers') == 0:  # torch accepts no settings of processes then
                loader['persistent_workers'] = False
                loader.pop('prefetch_factor', None)
        for backend in parts_of(cfg, r'visualizer\.vis_backends\.\d+').values():
            if backend.get('type') == 'MLflowVisBackend':
                backend['type'] = 'SafeMLflowVisBackend'
        if parts_of(cfg, r'optim_wrapper\.optimizer'):
            fit_optimizer_to_torch(cfg)
    return cfg


def _check(cfg: Config, resume=False) -> dict | None:
    """Check a config, and read its checkpoint, before anything is written."""
    with building(cfg, 'dataset or model'):
        check_config(cfg)
    path = cfg.get('load_from')
    # MMEngine downloads an address such as https://
    if not path or '://' in path:
        return None
    return read_training(path) if resume or cfg.get('resume') else read_checkpoint(path)


@contextlib.contextmanager
def _work_dir(cfg: Config, lock=False) -> Iterator[None]:
    """Make the work directory, and lock it for a training, before anything is written into it."""
    try:
        os.makedirs(cfg.work_dir, exist_ok=True)
    except OSError as error:
        raise InputError(f'The work directory {cfg.work_dir} cannot be created: {error.strerror}.') from error
    try:
        with locked(cfg.work_dir) if lock else contextlib.nullcontext():
            yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        file = error.filename or cfg.work_dir
        raise InputError(f'{file} cannot be read or written: {error.strerror}.') from error


def _build_runner(cfg: Config, checkpoint: dict | None, partly=False) -> Runner:
    """Build the runner. The checkpoint must fit the model, or ``partly`` some of its weights."""
    with building(cfg, 'model or runner'):
        runner = QuietRunner.from_cfg(cfg)
    runner.logger.info(f'Environment, config and hooks are written to {runner.log_dir}.')
    if cfg.get('resume'):
        runner.held_checkpoint = checkpoint
    elif checkpoint:  # MMEngine leaves weights random that it does not find
        check_weights(runner.model, weights_of(checkpoint, cfg.load_from), cfg.load_from, partly)
    return runner
