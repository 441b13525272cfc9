"""Training steps on a GPU, as configs/hg_2stack_mpii.py has them, beside a CPU's."""

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS

from hg_plugin.engine.cuda_graph import GraphedStep
from hg_plugin.training.runner import QuietRunner

CONFIG = 'configs/hg_2stack_mpii.py'


def random_batch(num):
    generator = torch.Generator().manual_seed(0)
    size = dict(size=(num, 3, 256, 256), dtype=torch.uint8, generator=generator)
    keypoints = torch.rand(num, 16, 2, generator=generator) * 256
    targets = dict(keypoints=keypoints, keypoints_visible=torch.ones(num, 16))
    return dict(inputs=torch.randint(0, 256, **size), data_samples=targets)


def pinned(batch):
    return dict(
        inputs=batch['inputs'].pin_memory(),
        data_samples={key: value.pin_memory() for key, value in batch['data_samples'].items()},
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='torch finds no GPU')
@pytest.mark.parametrize('dtype', ['bfloat16', None])
@pytest.mark.parametrize('cuda_graph', [False, True])
@pytest.mark.parametrize('with_cp', [False, True])
def test_a_step_learns_and_never_waits_for_the_gpu(request, with_cp, cuda_graph, dtype):
    cfg = Config.fromfile(request.config.rootpath / CONFIG)
    cfg.model.backbone.with_cp = with_cp
    cfg.optim_wrapper.dtype = dtype
    model = MODELS.build(cfg.model).cuda().train()
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    batch = pinned(random_batch(8))
    step = GraphedStep(model.train_step, optim_wrapper, warmup=3) if cuda_graph else model.train_step
    first, *_ = [step(batch, optim_wrapper=optim_wrapper)['loss'].item() for _ in range(5)]
    torch.cuda.set_sync_debug_mode('error')
    try:
        for _ in range(30):
            losses = step(batch, optim_wrapper=optim_wrapper)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert losses['loss'].item() < first / 2
    assert {p.dtype for p in model.parameters()} == {torch.float32}


class ForbidWaiting(Hook):
    """From before one iteration to after another, hooks and data included, nothing may wait for the GPU."""

    priority = 'VERY_LOW'

    def __init__(self, first, last):
        self.first, self.last, self.iterations = first, last, 0

    def set_mode(self, mode):
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode(mode)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == self.first:
            self.set_mode('error')

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.iterations += 1
        if batch_idx == self.last:
            self.set_mode('default')


@pytest.mark.parametrize('cuda_graph', [False, True])
def test_a_runner_never_waits_for_the_gpu_between_two_logs(device, small_config, tmp_path, cuda_graph):
    """Not in the steps before a CUDA graph is captured, and not in that one."""
    iterations = 16 if cuda_graph else 6
    if device == 'cpu' and torch.cuda.is_available():
        pytest.skip('the runner takes the GPU')
    cfg = small_config(
        *(8, 2),
        work_dir=str(tmp_path),
        experiment_name=tmp_path.name,  # or two runs of one second share their scalars
        model=dict(backbone=dict(channels=16, depth=1)),
        train_dataloader=dict(batch_size=4, pin_memory=device == 'cuda'),
        train_cfg=dict(_delete_=True, by_epoch=False, max_iters=iterations),
        default_hooks=dict(logger=dict(interval=iterations)),
        log_processor=dict(by_epoch=False),
    )
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    for phase in ('val', 'test'):
        cfg[f'{phase}_cfg'] = cfg[f'{phase}_dataloader'] = cfg[f'{phase}_evaluator'] = None
    cfg.param_scheduler = [dict(type='LinearLR', begin=0, end=iterations, start_factor=0.1, by_epoch=False)]
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=iterations)
    cfg.custom_hooks = [*cfg.custom_hooks, dict(type='EMAHook', ema_type='ForeachEMA')]
    cfg.cuda_graph = cuda_graph
    runner = QuietRunner.from_cfg(cfg)
    forbid = ForbidWaiting(iterations - 4, iterations - 2)
    runner.register_hook(forbid)
    try:
        runner.train()
    finally:
        forbid.set_mode('default')
    assert forbid.iterations == iterations and (tmp_path / f'iter_{iterations}.pth').exists()
    assert len(runner.message_hub.get_scalar('train/loss').data[0]) == iterations
    assert next(runner.model.parameters()).device.type == device


@pytest.fixture
def without_tf32():
    backends = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    yield
    for backend, allowed in zip(backends, before):
        backend.allow_tf32 = allowed


def train(cfg, device, dtype, state, batch, steps):
    """Losses of so many steps; and the gradients of the first, of all parameters and of the score
    convolutions, as one vector each."""
    model = MODELS.build(cfg.model)
    model.load_state_dict(state)
    model.to(device).train()
    optim_wrapper = build_optim_wrapper(model, dict(cfg.optim_wrapper, dtype=dtype, on_cpu=True))
    with optim_wrapper.optim_context(model):
        loss, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
    loss.backward()
    gradients = [
        torch.cat([parameter.grad.flatten().float().cpu() for parameter in part.parameters()])
        for part in (model, model.backbone.scores)
    ]
    optim_wrapper.zero_grad()
    losses = [model.train_step(batch, optim_wrapper)['loss'].item() for _ in range(steps)]
    return torch.tensor(losses), *gradients


@pytest.mark.parametrize(
    'dtype, loss_tolerance, cosine, scores_cosine',
    [(None, 1e-2, 0.98, 0.9999), ('bfloat16', 5e-2, 0.3, 0.99)],
)
def test_training_agrees_with_the_cpus_in_float32(
    request, without_tf32, device, dtype, loss_tolerance, cosine, scores_cosine
):
    """In bfloat16, the gradients of the first layers, which are sums of terms that cancel, keep about half of
    their direction."""
    cfg = Config.fromfile(request.config.rootpath / CONFIG)
    persons, steps = 4, 6
    if device == 'cpu':
        cfg.model.backbone.update(channels=16, depth=1)
        persons, steps = 2, 4
    torch.manual_seed(0)
    state = {name: value.clone() for name, value in MODELS.build(cfg.model).state_dict().items()}
    batch = random_batch(persons)
    cfg.model.backbone.channels_last = False
    expected, *expected_gradients = train(cfg, 'cpu', None, state, batch, steps=steps)
    cfg.model.backbone.channels_last = True  # another order of sums, on a CPU too
    losses, *gradients = train(cfg, device, dtype, state, batch, steps=steps)
    cosines = [torch.cosine_similarity(a, b, dim=0).item() for a, b in zip(gradients, expected_gradients)]
    assert losses[-1] < losses[0]
    assert torch.allclose(losses, expected, rtol=loss_tolerance)
    assert cosines[0] > cosine and cosines[1] > scores_cosine
    norm = expected_gradients[0].norm().item()
    assert gradients[0].norm() == pytest.approx(norm, rel=1e-2 if dtype is None else 0.2)
