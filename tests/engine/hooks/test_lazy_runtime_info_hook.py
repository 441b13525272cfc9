import re

import pytest
import torch
from mmengine.runner import Runner
from torch.utils._python_dispatch import TorchDispatchMode

from hg_plugin.compat.torch import fit_optimizer_to_torch, torch_before
from hg_plugin.engine.hooks import LazyRuntimeInfoHook


@pytest.fixture
def runner(tmp_path, small_config):
    """Builds a runner of the synthetic config, for 7 iterations of an epoch and logs every 3."""

    def build(name, hook='LazyRuntimeInfoHook', ema_type=None):
        checkpoint = dict(by_epoch=False, interval=5, max_keep_ckpts=9, save_best=None)
        hooks = dict(logger=dict(interval=3), checkpoint=checkpoint, runtime_info=dict(type=hook))
        settings = dict(work_dir=str(tmp_path / name), experiment_name=name, train_cfg=dict(max_epochs=2))
        cfg = small_config(14, 2, **settings, model=dict(backbone=dict(channels=8)), default_hooks=hooks)
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
        cfg.custom_hooks = [dict(type='EMAHook', ema_type=ema_type)] if ema_type else []
        fit_optimizer_to_torch(cfg)
        return Runner.from_cfg(cfg)

    return build


def history(hub):
    return {key: buffer.data[0] for key, buffer in hub.log_scalars.items() if re.search('loss|acc|peak', key)}


def test_history_and_checkpoints_are_those_of_mmengines_hook(runner, tmp_path):
    hubs = {}
    for hook in ('LazyRuntimeInfoHook', 'RuntimeInfoHook'):
        run = runner(hook, hook)
        run.train()
        hubs[hook] = history(run.message_hub)
        assert len(hubs[hook]['train/loss_stage1']) == 14
        saved = torch.load(tmp_path / hook / 'iter_5.pth')['message_hub']  # between two logs
        assert len(saved['log_scalars']['train/loss'].data[0]) == 5
    lazy, eager = hubs.values()
    assert len(lazy) == 5 and lazy == {key: pytest.approx(eager[key], rel=1e-5) for key in eager}


def test_losses_that_the_next_iteration_writes_over_are_kept(runner):
    """As the outputs of CUDA graphs are, in which torch.compile runs with mode='max-autotune'."""
    run = runner('overwritten')
    hook = next(hook for hook in run.hooks if isinstance(hook, LazyRuntimeInfoHook))
    hook.interval = 3
    run._train_loop = run.build_train_loop(run._train_loop)  # which has the loader
    loss = torch.zeros((), requires_grad=True) * 1
    for index in range(3):
        loss.data.fill_(index)
        others = dict(half=loss.bfloat16(), count=torch.tensor(3), learning=0.5)
        hook.after_train_iter(run, index, outputs=dict(loss=loss, **others))
        assert not any(values.requires_grad for _, (values, *_), _ in hook.waiting)
    found = {name: run.message_hub.get_scalar(f'train/{name}').data[0].tolist() for name in ('loss', *others)}
    assert found == dict(loss=[0, 1, 2], half=[0, 1, 2], count=[3] * 3, learning=[0.5] * 3)


class Reads(TorchDispatchMode):
    """Counts the values that are read from a tensor, for which a GPU would have to be waited for."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(torch_before('2.4'), reason="on CPUs, torch 2.1's optimisers read their counters")
def test_no_value_is_read_from_the_device_between_two_logs(runner):
    run = runner('reads', ema_type='ForeachEMA')
    reads, counts = Reads(), []
    train_step, call_hook = run.model.train_step, run.call_hook

    def counting(name, **kwargs):
        call_hook(name, **kwargs)
        if name == 'after_train_iter':
            reads.__exit__(None, None, None)
            counts.append(reads.count)
            reads.count = 0

    run.model.train_step = lambda *args, **kwargs: (reads.__enter__(), train_step(*args, **kwargs))[1]
    run.call_hook = counting
    run.train()
    # in every fifth, a checkpoint is written
    quiet = [index for index in range(1, 14) if index % 7 not in (2, 5, 6) and (index + 1) % 5]
    assert len(counts) == 14 and {counts[index] for index in quiet} == {0} and max(counts) > 0
