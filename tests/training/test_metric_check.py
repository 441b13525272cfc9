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


PLATEAU = dict(type='ReduceOnPlateauLR', monitor='Mean')  # which is of the less unless told


BOTH = [dict(type='EPE'), dict(type='MPIIPCKh')]


@pytest.mark.parametrize(
    'evaluator, settings, words',
    [
        (dict(type='mmpose.EPE'), dict(save_best='EPE', rule='greater'), ["rule='less'"]),
        (dict(type='Own'), dict(save_best='EPE', rule='greater'), ["rule='less'"]),
        (BOTH, dict(save_best=['EPE', 'Mean'], rule=['less', 'greater']), []),
        (BOTH, dict(save_best=['EPE', 'Mean'], rule='less'), ['worst Mean']),
        (dict(type='MPIIPCKh'), PLATEAU, ["rule='greater'"]),
    ],
)
def test_rules_of_several_metrics_and_of_ones_own(evaluator, settings, words):
    place = 'param_scheduler' if settings is PLATEAU else 'default_hooks.checkpoint'
    found = problems(evaluator, **{place: settings})
    assert len(found) == len(words) and all(word in problem for word, problem in zip(words, found))


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
