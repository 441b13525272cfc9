from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from torch.utils._python_dispatch import TorchDispatchMode

from hg_plugin.compat.torch import fit_optimizer_to_torch, torch_before
from hg_plugin.prepare.synthetic import make_synthetic


@pytest.fixture
def runner(tmp_path, request):
    """Builds a runner of the synthetic config, for 7 iterations of an epoch and logs every 3."""
    make_synthetic(tmp_path / 'data', num_train=14, num_val=2, seed=0, num_workers=1)

    def build(name, ema_type=None, **hooks):
        cfg = Config.fromfile(request.config.rootpath / 'configs/hg_2stack_synthetic.py')
        cfg.merge_from_dict(
            dict(
                work_dir=str(tmp_path / name),
                experiment_name=name,
                train_cfg=dict(max_epochs=2),
                val_cfg=None,
                val_dataloader=None,
                val_evaluator=None,
                custom_hooks=[dict(type='EMAHook', ema_type=ema_type)] if ema_type else [],
                model=dict(backbone=dict(channels=8)),
                train_dataloader=dict(
                    batch_size=2, num_workers=0, persistent_workers=False, pin_memory=False
                ),
                default_hooks=dict(
                    logger=dict(interval=3),
                    checkpoint=dict(by_epoch=False, interval=5, max_keep_ckpts=9, save_best=None),
                    **hooks,
                ),
            )
        )
        cfg.train_dataloader.dataset.data_root = str(tmp_path / 'data')
        fit_optimizer_to_torch(cfg)
        return Runner.from_cfg(cfg)

    return build


def history(hub):
    return {
        key: buffer.data[0]
        for key, buffer in hub.log_scalars.items()
        if 'loss' in key or 'acc' in key or 'peak' in key
    }


def test_history_and_checkpoints_are_those_of_mmengines_hook(runner, tmp_path):
    hubs = {}
    for name, hook in dict(lazy='LazyRuntimeInfoHook', eager='RuntimeInfoHook').items():
        run = runner(name, runtime_info=dict(type=hook))
        run.train()
        hubs[name] = history(run.message_hub)
        assert len(hubs[name]['train/loss_stage1']) == 14
        saved = torch.load(tmp_path / name / 'iter_5.pth')['message_hub']  # between two logs
        assert len(saved['log_scalars']['train/loss'].data[0]) == 5
    assert hubs['lazy'].keys() == hubs['eager'].keys() and len(hubs['lazy']) == 5
    for key, values in hubs['lazy'].items():
        assert values == pytest.approx(hubs['eager'][key], rel=1e-5), key


def test_losses_that_the_next_iteration_writes_over_are_kept(runner):
    """As the outputs of CUDA graphs are, in which torch.compile runs with mode='max-autotune'."""
    run = runner('overwritten', runtime_info=dict(type='LazyRuntimeInfoHook'))
    hook = next(hook for hook in run.hooks if type(hook).__name__ == 'LazyRuntimeInfoHook')
    hook.interval = 3
    run._train_loop = run.build_train_loop(run._train_loop)  # which has the loader
    loss = torch.zeros(())
    for index in range(3):
        loss.fill_(index)
        hook.after_train_iter(run, index, outputs=dict(loss=loss, learning=0.5))
    assert run.message_hub.get_scalar('train/loss').data[0].tolist() == [0, 1, 2]
    assert run.message_hub.get_scalar('train/learning').data[0].tolist() == [0.5] * 3


def test_losses_of_any_type_wait_without_their_graphs(runner):
    hook = next(
        hook
        for hook in runner('types', runtime_info=dict(type='LazyRuntimeInfoHook')).hooks
        if type(hook).__name__ == 'LazyRuntimeInfoHook'
    )
    hook.waiting, hook.interval = [], 3
    loss = torch.ones((), requires_grad=True) * 2
    hook.after_train_iter(
        SimpleNamespace(train_dataloader=range(9)),
        0,
        outputs=dict(a=loss, b=loss.bfloat16(), c=torch.tensor(3)),
    )
    ((_, (values,), _),) = hook.waiting
    assert values.tolist() == [2, 2, 3] and not values.requires_grad


class Reads(TorchDispatchMode):
    """Counts the values that are read from a tensor, for which a GPU would have to be waited for."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)
        return func(*args, **(kwargs or {}))


@pytest.mark.skipif(torch_before('2.4'), reason="on CPUs, torch 2.1's optimisers read their counters")
@pytest.mark.parametrize(
    'hook, ema_type, expected',
    [
        ('LazyRuntimeInfoHook', 'ForeachEMA', 0),
        pytest.param('LazyRuntimeInfoHook', 'ExponentialMovingAverage', 2, marks=pytest.mark.slow),
        ('RuntimeInfoHook', None, 5),
    ],
)
def test_no_value_is_read_from_the_device_between_two_logs(runner, hook, ema_type, expected):
    run = runner('reads', ema_type, runtime_info=dict(type=hook))
    reads, counts = Reads(), []
    train_step = run.model.train_step
    run.model.train_step = lambda *args, **kwargs: (reads.__enter__(), train_step(*args, **kwargs))[1]
    call_hook = run.call_hook

    def counting(name, **kwargs):
        call_hook(name, **kwargs)
        if name == 'after_train_iter':
            reads.__exit__(None, None, None)
            counts.append(reads.count)
            reads.count = 0

    run.call_hook = counting
    run.train()
    # in every fifth, a checkpoint is written
    between = [
        count
        for index, count in enumerate(counts)
        if index and index % 7 not in (2, 5, 6) and (index + 1) % 5
    ]
    assert len(counts) == 14 and set(between) == {expected}
