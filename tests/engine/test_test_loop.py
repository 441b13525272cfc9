import copy

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS
from mmengine.runner import Runner
from toy_training import forget_runners

from hg_plugin.compat.torch import fit_optimizer_to_torch
from hg_plugin.models import StackedHourglass
from hg_plugin.utils.errors import InputError


@METRICS.register_module()
class KeepHeatmaps(BaseMetric):
    """The last stack's heatmaps."""

    default_prefix = ''

    def process(self, data_batch, data_samples):
        self.results += [sample['pred_fields']['heatmaps'].numpy() for sample in data_samples]

    def compute_metrics(self, results):
        return dict(heatmaps=np.stack(results))


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
        cfg.test_evaluator = [dict(type='MPIIPCKh'), dict(type='KeepHeatmaps')]
        cfg.custom_hooks = [dict(type='EMAHook', momentum=0.3)] if ema else []
        fit_optimizer_to_torch(cfg)
        runner = Runner.from_cfg(cfg)
        runner.calls = []
        runner.model.backbone.scores[0].register_forward_hook(lambda *_: runner.calls.append(1))
        random_norms(runner.model)
        return runner

    return runner


ENABLED = {'test_cfg.type': 'ReparameterizedTestLoop'}


def test_the_test_runs_the_copy_and_finds_the_same(runner):
    last_stage = {'model.test_cfg.stage_keypoints': False}
    plain, fast = runner(**last_stage), runner(**ENABLED, **last_stage)
    before = copy.deepcopy(fast.model.state_dict())
    expected, found = plain.test(), fast.test()
    assert len(plain.calls) == 2 and not fast.calls  # batches; it is off by default
    a, b = found.pop('heatmaps'), expected.pop('heatmaps')
    assert a.shape == (5, 16, 32, 32)
    assert np.abs(a - b).max() < 1e-4 * b.std()
    assert not np.array_equal(a, b)  # folding rounds
    assert found == expected and 0 <= found['Mean'] <= 100
    # and the trained network is back
    assert type(fast.model.backbone) is StackedHourglass and 'predict' not in vars(fast.model)
    assert fast.model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in fast.model.state_dict().items())


def test_training_and_validation_run_the_trained_network(runner):
    plain = runner()
    plain.train()
    fast = runner(**ENABLED)  # seeds anew
    fast.train()
    assert len(fast.calls) == 1 + 2  # batches of training and of validation
    for (name, a), b in zip(plain.model.state_dict().items(), fast.model.state_dict().values()):
        assert torch.equal(a, b), name


def test_averaged_weights_are_tested_and_stay_averaged(runner):
    plain, fast = runner(ema=True), runner(ema=True, **ENABLED)
    for averaged in (plain, fast):
        averaged.call_hook('before_run')
        for parameter in averaged.model.parameters():  # as if training had gone on from the average
            parameter.data.mul_(1.5)
    before = copy.deepcopy(fast.model.state_dict())
    expected, found = plain.test()['heatmaps'], fast.test()['heatmaps']
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * expected.std())
    for name, value in fast.model.state_dict().items():
        assert torch.equal(value, before[name]), name


class KeepStages(BaseMetric):
    """How many stages have keypoints, and whether the last ones are those of the person."""

    def process(self, data_batch, data_samples):
        for found in (sample['pred_instances'] for sample in data_samples):
            stages = found['stage_keypoints'][0]
            self.results.append((len(stages), np.allclose(stages[-1], found['keypoints'][0])))

    def compute_metrics(self, results):
        return dict(found=results)


def test_all_stacks_where_they_are_asked_for(runner):
    fast = runner(**ENABLED, **{'model.test_cfg.stage_keypoints': True})
    fast.test_evaluator.metrics = [KeepStages()]
    assert fast.test()['found'] == [(2, True)] * 5


def test_other_networks_are_refused(runner):
    runner = runner(**ENABLED)
    runner.model.backbone = torch.nn.Conv2d(3, 3, 1)
    with pytest.raises(InputError, match='Conv2d'):
        runner.test()
