"""A checkpoint when a scheduler, Ctrl-C or a failing data loader ends a training."""

import functools
import os
import signal
import sys
import threading
import time
from typing import Any, NoReturn

import torch
from mmengine.dist import broadcast_object_list, get_comm_device, get_world_size, is_main_process
from mmengine.hooks import EMAHook, Hook
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator

from .checkpoint import PREEMPTED, SafeCheckpointHook
from .divergence import DivergenceHook
from .loaders import GuardedLoader
from .processes import SIGNALS, end_with_launcher

# HTCondor's convention for jobs that write checkpoints; no shell, signal or Python uses this number
EXIT_CODE = 85


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Write a checkpoint and end when SIGTERM, SIGUSR1, SIGHUP or SIGINT arrives, or a data loader fails.

    The iteration is finished, the checkpoint ``preempted.pth`` written, and the run ended with exit code
    85; with ``--resume``, :class:`ExactResumeHook` goes on with the next sample. A validation is broken off,
    and repeated by the resumed run. The file goes when that has written a newer checkpoint. Before the
    first iteration there is nothing to save, and the run ends at once, as it does after a second SIGINT.

    It needs :class:`SafeCheckpointHook`. Several processes may get the signal or only one of them: they agree
    every few iterations. When torchrun is killed, its processes do the same within 20 seconds. Outside of the
    main thread, Python heeds no signals, and only a failing loader ends the run so.

    Where a dataset raises an error, a single process writes the checkpoint, too, before the error ends it.

    Args:
        interval: Steps of the optimizer after which several processes agree. On GPUs one more interval passes
            until all have read the result, so that none waits for its GPU. Defaults to 5.
    """

    # after all hooks that change what a checkpoint holds
    priority = 'LOWEST'

    def __init__(self, interval: int = 5):
        self.interval = interval
        self.saver: SafeCheckpointHook | None = None
        self.loaders: list[GuardedLoader] = []
        self.iterating = False
        self.signal = 0  # or 1 for a loader's failure

    def before_run(self, runner: Runner) -> None:
        end_with_launcher()
        if not isinstance(runner._train_loop, BaseLoop):  # still a config where the runner only tests
            return
        self.saver = next((hook for hook in runner.hooks if isinstance(hook, SafeCheckpointHook)), None)
        if self.saver is None:
            runner.logger.warning('PreemptionHook needs SafeCheckpointHook: signals end this run as ever.')
            return
        for loop in (runner._train_loop, runner._val_loop):
            if isinstance(loop, BaseLoop):
                self.loaders.append(loop.dataloader)
                validates = loop is runner._val_loop
                failed = functools.partial(self._loader_failed, runner, validates)
                GuardedLoader.guard(loop.dataloader, failed)
        if isinstance(runner._train_loop, IterBasedTrainLoop):  # which has started workers already
            runner._train_loop.dataloader_iterator = None
            runner._train_loop.dataloader_iterator = _InfiniteDataloaderIterator(self.loaders[0])

    def before_train(self, runner: Runner) -> None:
        self.signal, self.since = 0, 0.0
        self.iterating = False
        self.steps = 0
        self.handlers: dict = {}
        self.announced: Any = None  # of all processes, on its way from the GPU
        self.process = os.getpid()
        if self.saver and threading.current_thread() is threading.main_thread():
            # nohup ignores SIGHUP, and a shell's script SIGINT for commands in the background
            heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self.handlers = {number: signal.signal(number, self._handle) for number in heeded}

    def after_train(self, runner: Runner) -> None:
        self._restore()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        self.iterating = True
        # torch raises an error wherever the process is when it is told of a worker's end
        if self.handlers and hasattr(signal, 'SIGCHLD'):  # not on Windows
            handler = signal.getsignal(signal.SIGCHLD)
            if callable(handler) and handler != self._worker_ended:
                self.handlers[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, self._worker_ended)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self.saver is None:
            return
        for hook in runner.hooks:
            if isinstance(hook, DivergenceHook) and hook.error:  # in all processes
                self._end(runner, runner.iter + 1, error=hook.error)
        # gradients that are being accumulated are in no checkpoint
        if getattr(runner.optim_wrapper, 'should_update', lambda: True)():
            self.steps += 1
            if self._agreed(self.steps):
                self._end(runner, runner.iter + 1)

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self.saver is None or not self.iterating:
            return
        # the last batches, which only some processes may have, are no place to agree
        loader = runner.val_dataloader
        common = len(loader.dataset) // get_world_size() // (loader.batch_size or len(loader.dataset))
        if batch_idx < common and self._agreed(batch_idx + 1):
            self._end(runner, runner.iter, validates=True)

    def _handle(self, number: int, frame) -> None:
        if os.getpid() != self.process:  # a loader's worker
            return
        if not _is_training(frame):  # which ended with an exception
            self._restore()
            os.kill(self.process, number)
        elif not self.signal:
            self.signal, self.since = number, time.monotonic()
            if is_main_process():  # not through the log, which may be at work
                action = 'finishing the iteration, and saving' if self.iterating else 'ending'
                os.write(2, f'{signal.Signals(number).name}: {action}\n'.encode())
            if not self.iterating:
                sys.exit(EXIT_CODE)
        # launchers pass on what the terminal has sent already
        elif number == signal.SIGINT and time.monotonic() - self.since > 1:
            signal.signal(number, signal.SIG_DFL)
            os.kill(self.process, number)

    def _worker_ended(self, number: int, frame) -> None:
        if os.getpid() == self.process and any(getattr(loader, 'waits', False) for loader in self.loaders):
            self.handlers[number](number, frame)

    def _loader_failed(self, runner: Runner, validates: bool, problem: str | Exception) -> None:
        """End at the next occasion, or save before an error that nothing can be done about."""
        if isinstance(problem, str):
            self.signal = self.signal or 1
            runner.logger.error(f'{problem}. The run saves, and ends; resume it then.')
        elif self.iterating and get_world_size() == 1:
            self._save(runner, runner.iter, validates)

    def _restore(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def _agreed(self, step: int) -> bool:
        """Whether to end now. All processes call it at the same steps and get the same answer."""
        if get_world_size() == 1:
            return bool(self.signal)
        if step % self.interval:
            return False
        device = get_comm_device()
        announced = torch.full((1,), self.signal, dtype=torch.int32, device=device)
        torch.distributed.all_reduce(announced, op=torch.distributed.ReduceOp.MAX)
        if device.type == 'cpu':
            return bool(announced)
        # what was announced an interval ago has arrived, so that the host does not wait for the GPU
        before, event = self.announced, torch.cuda.Event()
        self.announced = announced.to('cpu', non_blocking=True), event
        event.record()
        if before is None:
            return False
        before[1].synchronize()
        return bool(before[0])

    def _end(
        self, runner: Runner, iterations: int, validates: bool = False, error: Exception | None = None
    ) -> NoReturn:
        saved = [self._save(runner, iterations, validates)]
        broadcast_object_list(saved)  # all wait: a process that ends makes torchrun end the others
        self._restore()
        if error:
            raise error
        sys.exit(EXIT_CODE if saved[0] else 1)

    def _save(self, runner: Runner, iterations: int, validates: bool) -> bool:
        if validates:  # the model has the averaged weights
            for hook in runner.hooks:
                if isinstance(hook, EMAHook):
                    hook._swap_ema_parameters()
        saved = self.saver.save(runner, PREEMPTED, meta=dict(epoch=runner.epoch, iter=iterations))
        if saved:
            runner.logger.info(
                f'The training is saved after {iterations} iterations; --resume continues there.',
                extra=dict(kind='signal' if self.signal else 'checkpoints'),
            )
        return saved


def _is_training(frame) -> bool:
    while frame and frame.f_code is not Runner.train.__code__:
        frame = frame.f_back
    return frame is not None
