import pytest
from mmengine.config import Config

from hg_plugin.training.metric_check import metric_problems


def problems(evaluator, **settings):
    cfg = Config(dict(val_evaluator=evaluator, val_dataloader=dict(dataset=dict(type='A'))))
    cfg.merge_from_dict(settings)
    return [*metric_problems(cfg)]


@pytest.mark.parametrize('name', ['EPE', 'NME', 'auto', 'own/EPE'])
@pytest.mark.parametrize('place', ['default_hooks.checkpoint', 'custom_hooks', 'param_scheduler'])
def test_a_rule_that_keeps_the_worst_is_told(name, place):
    evaluator = dict(type=name.rpartition('/')[2] if name != 'auto' else 'EPE')

    def part(rule):
        setting = 'save_best' if 'checkpoint' in place else 'monitor'
        part = dict(type='A', rule=rule, **{setting: name})
        return part if 'checkpoint' in place else [part]

    (problem,) = problems(evaluator, **{place: part('greater')})
    assert place in problem and "rule='less'" in problem
    assert not problems(evaluator, **{place: part('less')}) and not problems(evaluator, **{place: part(None)})


@pytest.mark.parametrize('kind', ['mmpose.EPE', 'Own'])
def test_also_with_a_scope_and_beside_metrics_of_ones_own(kind):
    (problem,) = problems(
        dict(type=kind), **{'default_hooks.checkpoint': dict(save_best='EPE', rule='greater')}
    )
    assert "rule='less'" in problem


def test_every_metric_may_have_a_rule_of_its_own():
    metrics = [dict(type='EPE'), dict(type='MPIIPCKh')]
    both = dict(save_best=['EPE', 'Mean'], rule=['less', 'greater'])
    assert not problems(metrics, **{'default_hooks.checkpoint': both})
    both['rule'] = 'less'
    assert 'worst Mean' in problems(metrics, **{'default_hooks.checkpoint': both})[0]


def test_a_plateau_is_of_the_less_unless_told():
    (problem,) = problems(
        dict(type='MPIIPCKh'), param_scheduler=dict(type='ReduceOnPlateauLR', monitor='Mean')
    )
    assert "rule='greater'" in problem


@pytest.mark.parametrize(
    'metrics, name',
    [
        ([dict(type='MPIIPCKh'), dict(type='AUC')], 'AUC'),
        ([dict(type='MPIIPCKh', groups=dict(a=[1])), dict(type='AUC')], 'AUC'),
        ([dict(type='PCKAccuracy', thr=0.1), dict(type='PCKAccuracy', thr=0.2)], 'PCK'),
        ([dict(type='CocoMetric'), dict(type='CocoMetric')], 'coco/AP'),
        ([dict(type='MPIIPCKh'), dict(type='AUC', prefix='mmpose')], None),
        ([dict(type='PCKAccuracy', norm_item='bbox'), dict(type='PCKAccuracy', norm_item='torso')], None),
        ([dict(type='Own'), dict(type='Own')], None),
    ],
)
def test_two_metrics_of_one_name_are_told_with_the_prefix_to_give(metrics, name):
    found = problems(metrics)
    assert bool(found) == bool(name) and (not name or f'compute {name};' in found[0] and 'prefix' in found[0])


@pytest.mark.parametrize('dataset', ['MPIIPoseDataset', 'mmpose.MpiiDataset'])
@pytest.mark.parametrize('metric', ['MPIIPCKh', 'MpiiPCKAccuracy'])
def test_metrics_that_count_pixels_unlike_the_dataset_are_told(dataset, metric):
    found = problems(dict(type=metric), val_dataloader=dict(dataset=dict(type=dataset)))
    fits = (dataset, metric) in (('MPIIPoseDataset', 'MPIIPCKh'), ('mmpose.MpiiDataset', 'MpiiPCKAccuracy'))
    assert bool(found) != fits and all('pixel off' in problem for problem in found)
