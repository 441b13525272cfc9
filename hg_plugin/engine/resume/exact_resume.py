"""An interrupted and resumed training computes what an uninterrupted one does."""

import math

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook, IterTimerHook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.loops import _InfiniteDataloaderIterator

from hg_plugin.datasets import SeededInfiniteSampler, SeededSampler
from hg_plugin.utils.randomness import mix, seed_all

# of the message hub, and of a checkpoint
SAMPLES, SEED, BUFFERS = 'epoch_samples', 'sampler_seed', 'buffers_by_rank'


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Resume a training at the sample where its checkpoint was written, also in the middle of an epoch.

    Samples that were trained are skipped, not loaded. In every iteration, what the network draws, as for
    dropout, is a function of the run's seed, the iteration and the process. :class:`SafeCheckpointHook` keeps
    the running statistics of every process, which differ in the middle of an epoch. With the training sampler
    :class:`hg_plugin.datasets.SeededSampler`, or ``SeededInfiniteSampler`` in iteration-based training, a
    resumed run on a CPU is the same bit by bit, whatever the number of workers. With other samplers an epoch
    that was interrupted starts again.

    In a config::

        default_hooks = dict(exact_resume=dict(type='ExactResumeHook'))
        train_dataloader = dict(sampler=dict(type='SeededSampler', shuffle=True))
    """

    # after DistSamplerSeedHook and SyncBuffersHook, before CheckpointHook
    priority = 'LOW'

    def __init__(self):
        self.buffers = None  # of all processes, for the next checkpoint
        self.loaded = None  # from the checkpoint

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:
            self.loaded = checkpoint.get(BUFFERS)

    def before_train(self, runner: Runner) -> None:
        loop, hub = runner.train_loop, runner.message_hub
        loader = loop.dataloader
        self.sampler = getattr(loader.batch_sampler, 'sampler', loader.sampler)
        self.step = (getattr(loader.batch_sampler, 'batch_size', None) or 1) * get_world_size()
        seed = getattr(self.sampler, 'seed', None)  # MMEngine's have one
        self.seed = runner.seed if seed is None else seed
        self.samples = 0
        self.resumed = loop.iter > 0
        if self.resumed:
            self.samples = hub.get_info(SAMPLES, 0)
            # MMEngine builds the sampler before it knows the seed of the checkpoint
            self.seed = self.sampler.seed = hub.get_info(SEED, self.seed)
            self._load_buffers(runner)
        hub.update_info(SEED, self.seed)
        hub.update_info(SAMPLES, self.samples)

    def before_train_epoch(self, runner: Runner) -> None:
        loop, resumed, self.resumed = runner.train_loop, self.resumed, False
        vars(loop).pop('run_iter', None)
        if resumed and isinstance(loop, IterBasedTrainLoop):
            self._skip_iterations(loop)
        elif resumed and self.samples and isinstance(loop, EpochBasedTrainLoop):
            self._skip_samples(runner, loop)
        else:
            self.samples = 0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch=None) -> None:
        seed_all(mix(self.seed, runner.iter, get_rank()))

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self.samples += self.step
        runner.message_hub.update_info(SAMPLES, self.samples)

    def after_train_epoch(self, runner: Runner) -> None:
        self.samples = 0
        runner.message_hub.update_info(SAMPLES, 0)

    def gather_buffers(self, runner: Runner) -> None:
        """Collect the running statistics of all processes for a checkpoint. Call it in all of them."""
        if get_world_size() > 1:
            buffers = {name: buffer.cpu() for name, buffer in _model(runner).named_buffers()}
            self.buffers = all_gather_object(buffers)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if self.buffers:
            checkpoint[BUFFERS], self.buffers = self.buffers, None

    def _load_buffers(self, runner: Runner) -> None:
        if self.loaded and len(self.loaded) == get_world_size():
            for name, own in _model(runner).named_buffers():
                own.copy_(self.loaded[get_rank()][name])
        self.loaded = None

    def _skip_samples(self, runner: Runner, loop: EpochBasedTrainLoop) -> None:
        """Begin an epoch after the samples that were trained, and count its iterations from there."""
        loader = loop.dataloader
        if not isinstance(self.sampler, SeededSampler):
            # MMEngine's loop would train them, and count them a second time
            loop._iter = loop.epoch * len(loader)
            self.samples = 0
            for hook in runner.hooks:
                if isinstance(hook, IterTimerHook):
                    hook.before_train(runner)  # it counts from there
            runner.logger.warning(
                f'{type(self.sampler).__name__} cannot begin in the middle of an epoch: epoch '
                f'{loop.epoch + 1} starts again. SeededSampler can.'
            )
            return
        self.sampler.start = self.samples
        left = max(0, len(self.sampler) - self.samples // get_world_size()) / loader.batch_sampler.batch_size
        skipped = len(loader) - (math.floor if loader.drop_last else math.ceil)(left)
        run_iter = loop.run_iter
        loop.run_iter = lambda idx, data_batch: run_iter(idx + skipped, data_batch)
        runner.logger.info(f'Epoch {loop.epoch + 1} continues after {skipped} of {len(loader)} iterations.')

    def _skip_iterations(self, loop: IterBasedTrainLoop) -> None:
        """Let the loop skip the iterations that were trained without loading their samples."""
        if not isinstance(self.sampler, (SeededSampler, SeededInfiniteSampler)):
            return
        epoch = 0
        if isinstance(self.sampler, SeededSampler):
            epoch, iterations = divmod(loop.iter, len(loop.dataloader))
            self.sampler.set_epoch(epoch)
            self.sampler.start = iterations * self.step
        else:
            self.sampler.start = self.samples or loop.iter * self.step
        loop.dataloader_iterator = None  # ends its workers, where they do not persist
        loop.dataloader_iterator = _Advanced(loop.dataloader, epoch, loop.iter)


class _Advanced(_InfiniteDataloaderIterator):
    """The iterator of an IterBasedTrainLoop, whose first steps, with which the loop skips, load nothing."""

    def __init__(self, loader, epoch: int, steps: int):
        super().__init__(loader)
        self._epoch = epoch
        self.steps = steps

    def __next__(self):
        if self.steps:
            self.steps -= 1
            return None
        return super().__next__()


def _model(runner: Runner) -> torch.nn.Module:
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
