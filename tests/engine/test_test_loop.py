import copy

import numpy as np
import pytest
import torch
from mmengine.fileio import load
from mmengine.runner import Runner
from toy_training import forget_runners

from hg_plugin.compat.torch import fit_optimizer_to_torch
from hg_plugin.models import StackedHourglass
from hg_plugin.utils.errors import InputError


@pytest.fixture
def runner(small_config, random_norms, tmp_path):
    """Makes a runner whose network has batch norms that are worth folding, and that counts its own
    predictions of the first stack's heatmaps in ``calls``."""

    def runner(*, ema=False, **options):
        forget_runners()
        torch.manual_seed(0)
        model = dict(backbone=dict(channels=16), test_cfg=dict(flip_test=True, output_heatmaps=True))
        loaders = {f'{phase}_dataloader.batch_size': 4 for phase in ('train', 'val', 'test')}
        settings = dict(work_dir=str(tmp_path), model=model, train_cfg=dict(max_epochs=1))
        cfg = small_config(4, 5, **settings, **loaders)
        cfg.merge_from_dict(options)
        samples = str(tmp_path / 'samples.pkl')
        cfg.test_evaluator = [dict(type='MPIIPCKh'), dict(type='DumpResults', out_file_path=samples)]
        cfg.custom_hooks = [dict(type='EMAHook', momentum=0.3)] if ema else []
        fit_optimizer_to_torch(cfg)
        runner = Runner.from_cfg(cfg)
        runner.calls = []
        runner.model.backbone.scores[0].register_forward_hook(lambda *_: runner.calls.append(1))
        random_norms(runner.model)
        return runner

    return runner


def run_test(runner):
    """The metrics, the samples and their heatmaps, of the last stack."""
    metrics, samples = runner.test(), load(f'{runner.work_dir}/samples.pkl')
    return metrics, samples, np.stack([sample['pred_fields']['heatmaps'] for sample in samples])


ENABLED = {'test_cfg.type': 'ReparameterizedTestLoop'}


def test_the_test_runs_the_copy_and_finds_the_same(runner):
    last_stage = {'model.test_cfg.stage_keypoints': False}
    plain, fast = runner(**last_stage), runner(**ENABLED, **last_stage)
    before = copy.deepcopy(fast.model.state_dict())
    (expected, _, b), (found, _, a) = run_test(plain), run_test(fast)
    assert len(plain.calls) == 2 and not fast.calls  # batches; it is off by default
    assert a.shape == (5, 16, 32, 32)
    assert np.abs(a - b).max() < 1e-4 * b.std()
    assert not np.array_equal(a, b)  # folding rounds
    assert found == expected and 0 <= found['Mean'] <= 100
    # and the trained network is back
    assert type(fast.model.backbone) is StackedHourglass and 'predict' not in vars(fast.model)
    torch.testing.assert_close(fast.model.state_dict(), before, rtol=0, atol=0)


def test_training_and_validation_run_the_trained_network(runner):
    plain = runner()
    plain.train()
    fast = runner(**ENABLED)  # seeds anew
    fast.train()
    assert len(fast.calls) == 1 + 2  # batches of training and of validation
    torch.testing.assert_close(fast.model.state_dict(), plain.model.state_dict(), rtol=0, atol=0)


def test_averaged_weights_are_tested_and_stay_averaged(runner):
    plain, fast = runner(ema=True), runner(ema=True, **ENABLED)
    for averaged in (plain, fast):
        averaged.call_hook('before_run')
        for parameter in averaged.model.parameters():  # as if training had gone on from the average
            parameter.data.mul_(1.5)
    before = copy.deepcopy(fast.model.state_dict())
    (*_, expected), (*_, found) = run_test(plain), run_test(fast)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.std())
    torch.testing.assert_close(fast.model.state_dict(), before, rtol=0, atol=0)


def test_all_stacks_where_they_are_asked_for(runner):
    _, samples, _ = run_test(runner(**ENABLED, **{'model.test_cfg.stage_keypoints': True}))
    assert len(samples) == 5
    for found in (sample['pred_instances'] for sample in samples):
        assert found['stage_keypoints'].shape == (1, 2, 16, 2)
        np.testing.assert_allclose(found['stage_keypoints'][:, -1], found['keypoints'])


def test_other_networks_are_refused(runner):
    runner = runner(**ENABLED)
    runner.model.backbone = torch.nn.Conv2d(3, 3, 1)
    with pytest.raises(InputError, match='Conv2d'):
        runner.test()
