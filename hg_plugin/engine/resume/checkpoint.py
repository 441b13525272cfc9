"""Checkpoints that survive a kill at any moment, a full disk and a second run in the same folder."""

import contextlib
import logging
import os
import os.path as osp
import re
import shutil

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write, partial_name, replace_synced

from .divergence import why_not_to_save
from .exact_resume import ExactResumeHook
from .guard import in_main_process
from .lock import lock_folder

# of the message hub: after which epoch, or iteration, the run has validated last
VALIDATED = 'validated'
# the checkpoint of PreemptionHook
PREEMPTED = 'preempted.pth'


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook``, with its arguments and file names, but no moment without a whole file.

    A checkpoint is written once, beside its place, and moved there when it is on the disk. Then
    ``last_checkpoint`` names it, and only then the outdated one is deleted; likewise with the best one.
    MMEngine writes ``epoch_N`` a second time after a new best, to store the score. Here a run that resumes
    from ``epoch_N`` repeats its validation.

    A checkpoint that cannot be written, as on a full disk, is reported, and the training goes on. A training
    whose last one was not written ends with an :class:`InputError`.

    A work directory in which another process of this machine trains is refused. The checkpoints of an earlier
    run there are moved to a folder ``earlier_TIME`` in it, unless the run resumes from one of them.

    Raises:
        InputError: ``out_dir`` is no local folder.
    """

    # of each kind of checkpoint, latest and best, why the last one was not written
    failures: dict[str, str] | None = None
    lock = None

    def before_run(self, runner: Runner) -> None:
        if isinstance(runner._train_loop, BaseLoop):  # still a config where the runner only tests
            in_main_process(self._lock, runner.work_dir)

    def _lock(self, folder: str) -> None:
        self.lock = lock_folder(folder)

    def after_run(self, runner: Runner) -> None:
        if self.lock:
            self.lock.release()

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        if not isinstance(self.file_backend, LocalBackend):
            raise InputError(
                f'The out_dir {self.out_dir} is no local folder; give one, or use CheckpointHook.'
            )
        self.failures = {}
        # checkpoints by the names that this hook gives, and what belongs to them
        own = '.*'.join(map(re.escape, self.filename_tmpl.split('{}')))
        self.own = f'{own}|best_.*|{PREEMPTED}|last_checkpoint'
        if is_main_process():
            # what a run that was killed while it wrote has left; the lock tells that none is alive
            for path in self._files(runner, rf'({self.own})\.(.+\.)?partial'):
                os.unlink(path)
            source = runner._load_from if runner._resume else None
            if not source or osp.realpath(osp.dirname(source)) != osp.realpath(self.out_dir):
                self._set_aside(runner)
        info = runner.message_hub.runtime_info
        for key in self.key_indicators if self.save_best else ():
            path = info.get(self._best_keys(key)[1])
            # replaced after the checkpoint was written, or not copied with it
            if path and not in_main_process(osp.exists, path):
                self._set_best(runner, key, None, None)
        if _validation_is_due(runner):
            runner.logger.info(f'The validation after {_step(runner)} runs now.')
            runner.val_loop.run()

    def save(self, runner: Runner, filename: str, meta: dict, latest=True, **options) -> bool:
        """Write a checkpoint whole or not at all, and return whether it is on the disk.

        Call it in all processes; the first one writes. If it fails, a line in the log says why.

        Args:
            runner: What to save.
            filename: Its name in the folder of checkpoints.
            meta: ``epoch`` and ``iter`` that are complete.
            latest: Whether to resume from it. Defaults to True.
            **options: ``save_optimizer`` and ``save_param_scheduler``. Default to the hook's.
        """
        kind = 'latest' if latest else 'best'
        worthless = why_not_to_save(runner)
        if worthless:
            problem = f'{filename} is not written, because {worthless}.'
            runner.logger.error(problem, extra=dict(kind='checkpoints'))
            if latest:
                self.failures[kind] = f'{filename} was not written, because {worthless}'
            return False
        for hook in runner.hooks:
            if latest and isinstance(hook, ExactResumeHook):
                hook.gather_buffers(runner)
        path = osp.join(self.out_dir, filename)
        partial = partial_name(path)
        options = dict(
            save_optimizer=self.save_optimizer, save_param_scheduler=self.save_param_scheduler, **self.args
        ) | dict(meta=meta, by_epoch=self.by_epoch, backend_args=self.backend_args, **options)
        try:
            runner.save_checkpoint(self.out_dir, partial.name, self.file_client_args, **options)
            if is_main_process():
                replace_synced(partial, path)
                if latest:
                    with atomic_write(osp.join(runner.work_dir, 'last_checkpoint')) as file:
                        file.write(filename.encode())
        except (OSError, InputError) as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            self.failures[kind] = f'{path} was not written: {getattr(error, "strerror", None) or error}'
            good = self.last_ckpt or runner._resume and runner._load_from
            runner.logger.error(
                f'{self.failures[kind]}. The training continues, and saves again at the next interval; '
                f'the last good checkpoint is {good or "not there yet"}.',
                extra=dict(kind='checkpoints'),
            )
            return False
        self.failures.pop(kind, None)
        if latest:
            self.last_ckpt = path
            runner.message_hub.update_info('last_ckpt', path)
            if filename != PREEMPTED:  # which is older
                self._remove(osp.join(self.out_dir, PREEMPTED))
        return True

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        hub, filename = runner.message_hub, self.filename_tmpl.format(step)
        if self.max_keep_ckpts <= 0:
            self.save(runner, filename, meta)
            return
        before = hub.get_info('keep_ckpt_ids', [])
        steps = [*(kept for kept in before if kept != step), step]
        # the checkpoint names what is outdated too, so that a run resumed from it deletes that
        hub.update_info('keep_ckpt_ids', steps)
        if self.save(runner, filename, meta):
            for outdated in steps[: -self.max_keep_ckpts]:
                self._remove(osp.join(self.out_dir, self.filename_tmpl.format(outdated)))
            steps = steps[-self.max_keep_ckpts :]
        elif not osp.exists(osp.join(self.out_dir, filename)):  # it is there where last_checkpoint failed
            steps = before
        hub.update_info('keep_ckpt_ids', steps)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        if not self.save_best:
            return
        if 'auto' in self.key_indicators:
            self._init_rule(self.rules, [next(iter(metrics))])
        hub, step = runner.message_hub, runner.epoch if self.by_epoch else runner.iter
        for key, rule in zip(self.key_indicators, self.rules):
            score_key, path_key = self._best_keys(key)
            score, old = metrics[key], {name: hub.runtime_info.get(name) for name in (score_key, path_key)}
            best = self.init_value_map[rule] if old[score_key] is None else old[score_key]
            if score is None or not self.is_better_than[key](score, best):
                continue
            name = f'best_{key}_{self.filename_tmpl.format(step)}'.replace('/', '_')
            path = osp.join(self.out_dir, name)
            self._set_best(runner, key, score, path)
            meta = dict(epoch=runner.epoch, iter=runner.iter)
            options = dict(save_optimizer=False, save_param_scheduler=False)
            if not self.save(runner, name, meta, latest=False, **options):
                self._set_best(runner, key, *old.values())
                if path != old[path_key]:  # it is there where only its folder was not synced
                    self._remove(path)
                continue
            at = f'{step} {"epoch" if self.by_epoch else "iter"}'
            runner.logger.info(f'The best checkpoint with {score:0.4f} {key} at {at} is saved to {name}.')
            if old[path_key] and old[path_key] != path:
                self._remove(old[path_key])

    def after_val_epoch(self, runner: Runner, metrics: dict) -> None:
        if self.failures is None:  # runner.val(), outside of a training
            return
        super().after_val_epoch(runner, metrics)
        # a resumed run repeats a validation whose best checkpoint was not written
        if 'best' not in self.failures:
            runner.message_hub.update_info(VALIDATED, _step(runner))

    def after_train(self, runner: Runner) -> None:
        super().after_train(runner)
        if self.failures:
            raise InputError(f'The training is complete, but {" and ".join(self.failures.values())}.')

    def _best_keys(self, key: str) -> tuple[str, str]:
        """The names of a best score and its checkpoint in the message hub."""
        suffix = '' if len(self.key_indicators) == 1 else f'_{key}'
        return f'best_score{suffix}', f'best_ckpt{suffix}'

    def _set_best(self, runner: Runner, key: str, score: float | None, path: str | None) -> None:
        for name, value in zip(self._best_keys(key), (score, path)):
            if value is None:
                runner.message_hub.runtime_info.pop(name, None)
            else:
                runner.message_hub.update_info(name, value)
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = path
        else:
            self.best_ckpt_path_dict[key] = path

    def _remove(self, path: str) -> None:
        if is_main_process() and osp.exists(path):
            try:
                os.unlink(path)
            except OSError as error:
                print_log(f'{path} cannot be deleted: {error.strerror}.', 'current', logging.WARNING)

    def _files(self, runner: Runner, pattern: str) -> list[str]:
        """The paths of files whose names match, among checkpoints and in the work directory."""
        return [
            osp.join(folder, name)
            for folder in {self.out_dir, runner.work_dir}
            for name in (os.listdir(folder) if osp.isdir(folder) else ())
            if re.fullmatch(pattern, name)
        ]

    def _set_aside(self, runner: Runner) -> None:
        found = self._files(runner, self.own)
        if found:
            earlier = osp.join(self.out_dir, f'earlier_{runner.timestamp}')
            os.makedirs(earlier, exist_ok=True)
            for path in found:
                shutil.move(path, earlier)
            runner.logger.warning(
                f'{self.out_dir} had {len(found)} files of an earlier run, which this one does not resume; '
                f'they are in {earlier} now.',
                extra=dict(kind='checkpoints'),
            )


def _step(runner: Runner) -> int:
    return runner.iter if isinstance(runner.train_loop, IterBasedTrainLoop) else runner.epoch


def _validation_is_due(runner: Runner) -> bool:
    """Whether the run resumes from a checkpoint that was written before the validation that follows it."""
    loop, step = runner.train_loop, _step(runner)
    validated = runner.message_hub.get_info(VALIDATED)
    if validated is None:  # the run begins, here or without this hook
        runner.message_hub.update_info(VALIDATED, 0)
        return False
    if runner.val_loop is None or step == 0 or step <= validated:
        return False
    loop._decide_current_val_interval()
    last = loop.max_iters if isinstance(loop, IterBasedTrainLoop) else loop.max_epochs
    return step >= loop.val_begin and (step % loop.val_interval == 0 or step == last)
