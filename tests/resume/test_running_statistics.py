import torch
from torch import nn

from hg_plugin.engine.resume.running_statistics import RunningStatistics


def test_a_bad_batch_leaves_no_trace_and_a_good_one_is_as_without():
    torch.manual_seed(0)
    good, bad = torch.randn(4, 3, 5, 5), torch.full((4, 3, 5, 5), float('inf'))
    model, reference = (nn.Sequential(nn.BatchNorm2d(3), nn.Identity()) for _ in range(2))
    statistics = RunningStatistics(model)
    for batch in (good, bad, good * 2):
        statistics.remember()
        model(batch)
        statistics.restore()
        if batch is not bad:
            reference(batch)
    for name in ('running_mean', 'running_var'):
        assert torch.equal(getattr(model[0], name), getattr(reference[0], name))


def test_all_is_put_back_for_a_skipped_step():
    model = nn.BatchNorm2d(3)
    statistics = RunningStatistics(model)
    statistics.remember()
    model(torch.randn(4, 3, 5, 5))
    statistics.restore(torch.ones(()))
    assert model.running_mean.tolist() == [0] * 3 and model.running_var.tolist() == [1] * 3


def test_a_model_without_batch_norms():
    statistics = RunningStatistics(
        nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, track_running_stats=False))
    )
    statistics.remember()
    statistics.restore(torch.ones(()))
