"""A training step on a GPU, as configs/hg_2stack_mpii.py has it."""

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='torch finds no GPU')
@pytest.mark.parametrize('with_cp', [False, True])
def test_a_step_in_bfloat16_learns_and_never_waits_for_the_gpu(request, with_cp):
    cfg = Config.fromfile(request.config.rootpath / 'configs/hg_2stack_mpii.py')
    cfg.model.backbone.with_cp = with_cp
    model = MODELS.build(cfg.model).cuda().train()
    optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    batch = default_collate(
        [
            dict(
                inputs=torch.randint(0, 256, (3, 256, 256), dtype=torch.uint8),
                data_samples=dict(keypoints=torch.rand(16, 2) * 256, keypoints_visible=torch.ones(16)),
            )
            for _ in range(8)
        ]
    )
    batch = dict(
        inputs=batch['inputs'].pin_memory(),
        data_samples={key: value.pin_memory() for key, value in batch['data_samples'].items()},
    )
    first = model.train_step(batch, optim_wrapper)['loss'].item()
    torch.cuda.set_sync_debug_mode('error')
    try:
        for _ in range(30):
            losses = model.train_step(batch, optim_wrapper)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert losses['loss'].item() < first / 2
    assert {p.dtype for p in model.parameters()} == {torch.float32}
