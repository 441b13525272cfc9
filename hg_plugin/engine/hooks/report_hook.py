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
from typing import Any

import numpy as np
from mmengine import dist
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.logging.logger import FilterDuplicateWarning
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from hg_plugin import __file__ as package
from hg_plugin import __version__
from hg_plugin.evaluation.pckh import joint_groups
from hg_plugin.mpii_format import NUM_JOINTS
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
        self.begin = time.monotonic()
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
      truth, head sizes, boxes and image paths of all persons. Only for MPII's joints and with head sizes.
    """

    priority = 'VERY_HIGH'  # before hooks that warn
    events: EventHandler | None = None  # in the main process, while it trains

    def before_run(self, runner: Runner) -> None:
        if isinstance(runner._train_loop, BaseLoop) and dist.is_main_process():
            self.events = EventHandler(osp.join(runner.log_dir, EVENTS), runner.message_hub)
            runner.logger.addHandler(self.events)

    def before_train(self, runner: Runner) -> None:
        self.persons: list[dict] = []
        self.device = next(runner.model.parameters()).device
        if not self.events:
            return
        # what a run that was killed while it wrote has left
        folder = Path(runner.work_dir)
        for path in (*folder.glob(f'*/{RECORD}.*.partial'), *folder.glob(f'{PREDICTIONS}.*.partial')):
            with contextlib.suppress(OSError):
                path.unlink()
        loop, hub = runner.train_loop, runner.message_hub
        hub.update_info('run_id', hub.get_info('run_id') or uuid.uuid4().hex)  # that of the checkpoint
        earlier = [read_record(path).get('start') for path in folder.glob(f'*/{RECORD}')]
        self.record = dict(
            run_id=hub.get_info('run_id'),
            # clocks and time zones change between starts
            start=max((number for number in earlier if isinstance(number, int)), default=-1) + 1,
            resumed=runner.iter,
            per_epoch=len(loop.dataloader) if isinstance(loop, EpochBasedTrainLoop) else None,
            environment={
                'started in': os.getcwd(),
                'git, folder of the run': git_state(os.getcwd()),
                'git, hg_plugin': git_state(osp.dirname(package)),
                'hg_plugin': __version__,
                **describe(),
            },
            device=device_name(self.device),
            processes=dist.get_world_size(),
        )

    def before_train_epoch(self, runner: Runner) -> None:
        self._write_record(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        self.persons = []

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        for sample in outputs or ():
            truth, found = sample.get('gt_instances', {}), sample.get('pred_instances', {})
            if 'head_size' in truth and 'keypoints' in found:
                self.persons.append(_person(sample, truth, found))

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        if not hasattr(self, 'device'):  # a validation outside of a training
            return
        self._write_record(runner)
        persons = [person for part in dist.all_gather_object(self.persons) for person in part]
        self.persons = []
        if not persons or not dist.is_main_process():
            return
        # a distributed sampler may repeat persons
        persons = [person for _, person in sorted({person['ids']: person for person in persons}.items())]
        columns = {key: np.stack([person[key] for person in persons]) for key in persons[0]}
        if columns['truth'].shape[1] == NUM_JOINTS and not joint_groups(
            runner.val_dataloader.dataset.metainfo
        ):
            content = io.BytesIO()
            np.savez_compressed(content, **columns, run=runner.timestamp)
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
                seconds=time.monotonic() - self.events.begin,
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


def read_record(path: Path) -> dict[str, Any]:
    """What a :class:`ReportHook` has written of a start; empty where it has not, or damaged."""
    try:
        return json.loads(path.read_bytes() if path.is_file() else b'')
    except ValueError:
        return {}


def _person(sample, truth, found) -> dict[str, np.ndarray]:
    """What a report needs of a person, in 0-based pixels of the image, for S stages and K keypoints."""
    last = np.asarray(found.keypoints, np.float32)[:1, :, :2]  # (1, K, 2)
    visible = np.asarray(truth.keypoints_visible, np.float32)
    return dict(
        ids=np.int64(sample.metainfo['id']),
        images=np.str_(osp.abspath(sample.metainfo['img_path'])),
        keypoints=np.asarray(found.get('stage_keypoints', last[None])[0], np.float32),  # (S, K, 2)
        truth=np.asarray(truth.keypoints, np.float32)[0],  # (K, 2)
        annotated=visible.reshape(*visible.shape[:2], -1)[0, :, 0] > 0,  # (K,)
        head_size=np.float32(np.asarray(truth.head_size).item()),
        boxes=np.asarray(truth.bboxes, np.float32)[0],  # (4,): left, top, right, bottom
        # (2,), of the network's input
        centers=np.asarray(sample.metainfo['input_center'], np.float32),
        scales=np.asarray(sample.metainfo['input_scale'], np.float32),
    )
