"""Train and test with MMEngine's stock runner, from a config and options."""

import logging
import os
from os import PathLike
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from hg_plugin.compat.distributed import start_processes
from hg_plugin.compat.torch import fit_optimizer_to_torch
from hg_plugin.engine.cuda_graph import GraphedStep
from hg_plugin.utils.checkpoint import check_weights, read_checkpoint, weights_of
from hg_plugin.utils.config import LOADER, building, parts_of, read_config
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import FULL
from hg_plugin.utils.latest_checkpoint import read_training
from hg_plugin.utils.processes import end_with_launcher

from .config_check import check_config
from .length_check import check_length
from .pipeline_check import check_pipelines


class QuietRunner(Runner):
    """MMEngine's runner, whose environment, config and hooks go to the log file and not to the screen."""

    def build_logger(self, *args, **kwargs):
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                # no method of the runner, which holds a process group: loggers live as long as Python
                handler.addFilter(_is_short)
        return logger

    def _maybe_compile(self, target: str) -> None:
        super()._maybe_compile(target)
        if self.cfg.get('cuda_graph'):
            setattr(self.model, target, GraphedStep(getattr(self.model, target), self.optim_wrapper))


def _is_short(record: logging.LogRecord) -> bool:
    """Whether a message is a warning, or not longer than any table of metrics."""
    return record.levelno > logging.INFO or record.getMessage().count('\n') < 15


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
        # True: the runner finds the latest one, see hg_plugin.utils.resume
        cfg.resume, cfg.load_from = True, None if resume is True else resume
    with building(cfg, 'training', late=True):
        runner = _build_runner(cfg, cfg.get('load_from'), resume=bool(resume), partly=not resume)
        check_pipelines(runner, 'train', 'val')
        check_length(runner)
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
    # the runner loads the weights after EMAHook has made the model that takes them
    cfg.load_from, cfg.resume = checkpoint, False
    with building(cfg, 'test', late=True):
        runner = _build_runner(cfg, checkpoint)
        check_pipelines(runner, 'test')
        metrics = runner.test()
    drawing = cfg.get('default_hooks', {}).get('visualization') or {}
    if drawing.get('enable') and drawing.get('out_dir'):
        runner.logger.info(f'Drawn predictions are in {runner.log_dir}/{drawing["out_dir"]}.')
    return metrics


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


def _build_runner(cfg: Config, checkpoint: str | None, resume=False, partly=False) -> Runner:
    """Check config and checkpoint, and build the runner. ``partly``: some weights of the model may be new."""
    with building(cfg, 'dataset or model'):
        check_config(cfg)
    # MMEngine downloads an address such as https://
    read = read_training if resume else read_checkpoint
    state = read(checkpoint) if checkpoint and '://' not in checkpoint else None
    try:
        os.makedirs(cfg.work_dir, exist_ok=True)
    except OSError as error:
        raise InputError(f'The work directory {cfg.work_dir} cannot be made: {error.strerror}.') from error
    try:
        with building(cfg, 'model or runner'):
            runner = QuietRunner.from_cfg(cfg)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise InputError(f'The work directory {cfg.work_dir} cannot be written: {error.strerror}.') from error
    runner.logger.info(f'Environment, config and hooks are written to {runner.log_dir}.')
    if state:  # MMEngine leaves weights random that it does not find
        check_weights(runner.model, weights_of(state, checkpoint), checkpoint, partly)
    return runner
