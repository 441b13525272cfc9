"""What ``hg_plugin report`` shows of a run and nothing else keeps."""

import contextlib
import io
import json
import logging
import os
import os.path as osp
import time
import uuid
from pathlib import Path

import numpy as np
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.logging.logger import FilterDuplicateWarning
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from hg_plugin import __file__ as package
from hg_plugin import __version__
from hg_plugin.evaluation import joint_groups
from hg_plugin.utils.environment import describe, device_name, git_state
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write

# in the folder of a start or resume
RECORD, EVENTS = 'run.json', 'events.jsonl'
# in the work directory
PREDICTIONS = 'predictions.npz'


class EventHandler(logging.Handler):
    """Append messages of a run's logger to a file, a JSON object a line.

    These are warnings, errors and messages with a kind::

        runner.logger.warning('...', extra=dict(kind='skipped steps'))

    Args:
        path: The file, which the first message makes.
        hub: Knows the number of iterations.
    """

    def __init__(self, path: str, hub: MessageHub):
        super().__init__()
        self.path = path
        self.hub = hub
        self.addFilter(FilterDuplicateWarning())
        self.addFilter(lambda record: record.levelno >= logging.WARNING or hasattr(record, 'kind'))

    def emit(self, record: logging.LogRecord) -> None:
        event = dict(
            iter=self.hub.get_info('iter', 0),
            level=record.levelname,
            kind=getattr(record, 'kind', 'other'),
            text=record.getMessage(),
        )
        with contextlib.suppress(OSError), open(self.path, 'a') as file:  # the log has it, too
            file.write(f'{json.dumps(event)}\n')


@HOOKS.register_module()
class ReportHook(Hook):
    """Keep what ``hg_plugin report`` shows of a training beside its log.

    - The folder of the log gets ``run.json``: environment, device and the state of git at its start, which
      iteration it resumes and how long it has run; and ``events.jsonl``, see :class:`EventHandler`.
    - After each validation, the work directory's ``predictions.npz`` is replaced: keypoints of all stages,
      truth, head sizes, boxes and image paths of all persons, which ``MPIIPCKh`` has collected. Only for
      MPII's joints.
    """

    priority = 'VERY_HIGH'  # before hooks that warn
    events: EventHandler | None = None  # in the main process, while it trains

    def before_run(self, runner: Runner) -> None:
        if isinstance(runner._train_loop, BaseLoop) and dist.is_main_process():
            self.begin = time.monotonic()
            self.events = EventHandler(osp.join(runner.log_dir, EVENTS), runner.message_hub)
            runner.logger.addHandler(self.events)

    def before_train(self, runner: Runner) -> None:
        if not self.events:
            return
        # what a run that was killed while it wrote has left
        folder = Path(runner.work_dir)
        for path in (*folder.glob(f'*/{RECORD}.*.partial'), *folder.glob(f'{PREDICTIONS}.*.partial')):
            with contextlib.suppress(OSError):
                path.unlink()
        loop, hub = runner.train_loop, runner.message_hub
        hub.update_info('run_id', hub.get_info('run_id') or uuid.uuid4().hex)  # that of the checkpoint
        self.record = dict(
            run_id=hub.get_info('run_id'),
            # starts before this one: clocks and time zones change
            start=len([*folder.glob(f'*/{RECORD}')]),
            resumed=runner.iter,
            per_epoch=len(loop.dataloader) if isinstance(loop, EpochBasedTrainLoop) else None,
            environment={
                'started in': os.getcwd(),
                'git, folder of the run': git_state(os.getcwd()),
                'git, hg_plugin': git_state(osp.dirname(package)),
                'hg_plugin': __version__,
                **describe(),
            },
            device=device_name(next(runner.model.parameters()).device),
            processes=dist.get_world_size(),
        )

    def before_train_epoch(self, runner: Runner) -> None:
        self._write_record(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self._write_record(runner)
        for metric in runner.val_evaluator.metrics if self.events else ():
            persons = getattr(metric, 'persons', {})
            if 'images' in persons and joint_groups(metric.dataset_meta) is None:
                columns = {
                    name: np.float32(own) if own.dtype == np.float64 else own
                    for name, own in persons.items()
                    if name not in ('pred', 'scores')
                }
                columns['images'] = [osp.abspath(path) for path in columns['images']]
                content = io.BytesIO()
                np.savez_compressed(content, **columns, weights=metric.weights, run=runner.timestamp)
                self._write(runner, osp.join(runner.work_dir, PREDICTIONS), content.getvalue())

    def after_train(self, runner: Runner) -> None:
        self._write_record(runner, complete=True)
        runner.logger.info(f'Curves, persons and warnings of this run: hg_plugin report {runner.work_dir}')

    def after_run(self, runner: Runner) -> None:
        if self.events:
            runner.logger.removeHandler(self.events)
            self.events = None

    def _write_record(self, runner: Runner, complete: bool = False) -> None:
        if self.events:
            self.record |= dict(
                iter=runner.iter,
                seconds=time.monotonic() - self.begin,
                complete=complete,
            )
            content = json.dumps(self.record, indent=1).encode()
            self._write(runner, osp.join(runner.log_dir, RECORD), content)

    @staticmethod
    def _write(runner: Runner, path: str, content: bytes) -> None:
        try:
            with atomic_write(path) as file:
                file.write(content)
        except InputError as error:  # no reason to end a training
            runner.logger.warning(str(error))
