"""Losses that are read from the GPU when they are logged, and not in every iteration."""

import torch
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner


@HOOKS.register_module()
class LazyRuntimeInfoHook(RuntimeInfoHook):
    """A ``RuntimeInfoHook`` that does not make the host wait for the GPU in every iteration.

    MMEngine's reads every loss in every iteration. Here losses stay on the device until the iteration that
    :class:`mmengine.hooks.LoggerHook` logs, which fetches all of them at once. The message hub gets the same
    values in the same order, and a checkpoint holds all of them. In a config:
    ``default_hooks = dict(runtime_info=dict(type='LazyRuntimeInfoHook'))``.
    """

    def __init__(self):
        self.waiting = []

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        self.waiting = []
        self.interval = next((hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)), 1)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        outputs = outputs or {}
        names = [name for name, value in outputs.items() if isinstance(value, torch.Tensor)]
        others = {name: value for name, value in outputs.items() if name not in names}
        tensors = [outputs[name].detach().float().reshape(()) for name in names]
        # stack copies; with CUDA graphs, the next iteration writes its losses to the same memory
        self.waiting.append((names, [torch.stack(tensors)] if tensors else [], others))
        last = self.end_of_epoch(runner.train_dataloader, batch_idx)
        if last or self.every_n_inner_iters(batch_idx, self.interval):
            self.fetch(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.fetch(runner)
        if 'message_hub' in checkpoint:
            checkpoint['message_hub'] = runner.message_hub.state_dict()

    def fetch(self, runner: Runner) -> None:
        """Move all waiting values into the message hub, with one copy from the device."""
        values = [tensor for _, values, _ in self.waiting for tensor in values]
        values = iter(torch.cat(values).tolist() if values else ())
        for names, _, others in self.waiting:
            for name, value in {**dict(zip(names, values)), **others}.items():
                runner.message_hub.update_scalar(f'train/{name}', value)
        self.waiting = []
