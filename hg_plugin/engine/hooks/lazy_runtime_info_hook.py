"""Losses are read from the GPU when they are logged, not in every iteration."""

import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

# stands for a value that is not fetched yet
ON_DEVICE = object()


@HOOKS.register_module()
class LazyRuntimeInfoHook(RuntimeInfoHook):
    """MMEngine's ``RuntimeInfoHook`` without its reading of every loss in every iteration, for which the GPU has to come to rest.

    The losses stay where they are until the iteration that :class:`mmengine.hooks.LoggerHook` logs, and are then fetched all at
    once. The history holds the same values in the same order, also in a checkpoint; between two logs it ends at the first. In a config: ``default_hooks = dict(runtime_info=dict(type='LazyRuntimeInfoHook'))``.
    """

    def __init__(self):
        self.waiting = []

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self.waiting = []
        self.interval = next((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 1)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch=None, outputs: dict | None = None
    ) -> None:
        tensors = {
            key: value.detach().float().reshape(())
            for key, value in (outputs or {}).items()
            if isinstance(value, torch.Tensor)
        }
        # a copy, because in CUDA graphs the next iteration writes its losses to the same place
        stacked = [torch.stack([*tensors.values()])] if tensors else []
        self.waiting.append(({**(outputs or {}), **dict.fromkeys(tensors, ON_DEVICE)}, stacked))
        if self.every_n_inner_iters(batch_idx, self.interval) or self.end_of_epoch(
            runner.train_dataloader, batch_idx
        ):
            self.fetch(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.fetch(runner)
        if 'message_hub' in checkpoint:
            checkpoint['message_hub'] = runner.message_hub.state_dict()

    def fetch(self, runner: Runner) -> None:
        """Puts all values that wait into the message hub, with one copy from the device."""
        stacked = [values for _, stacked in self.waiting for values in stacked]
        values = iter(torch.cat(stacked).tolist() if stacked else ())
        for outputs, _ in self.waiting:
            for key, value in outputs.items():
                runner.message_hub.update_scalar(
                    f'train/{key}', next(values) if value is ON_DEVICE else value
                )
        self.waiting = []
