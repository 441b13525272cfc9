import json
import logging
import os

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from mmpose.structures import PoseDataSample

from hg_plugin.datasets import MPIIPoseDataset
from hg_plugin.evaluation import MPIIPCKh, joint_groups, pckh, pckh_curves, pckh_metrics, pckh_table
from hg_plugin.utils.errors import InputError

COLUMNS = ['Head', 'Shoulder', 'Elbow', 'Wrist', 'Hip', 'Knee', 'Ankle', 'Mean', 'Mean@0.1', 'AUC']


def data_samples(pred, gt, visible, head_size):
    """One sample a person, as a model hands them to the evaluator."""
    samples = []
    for row in range(len(pred)):
        sample = PoseDataSample(metainfo=dict(id=row, img_path=f'{row}.jpg'))
        scores = np.ones((1, pred.shape[1]))
        sample.pred_instances = InstanceData(keypoints=pred[row][None], keypoint_scores=scores)
        truth = dict(keypoints=gt[row][None], keypoints_visible=visible[row][None].astype(np.float32))
        sample.gt_instances = InstanceData(**truth, head_size=np.array([[head_size[row]]]))
        samples.append(sample)
    return samples


def evaluate(samples, batch_size=4, dataset_meta=None, **kwargs):
    evaluator = Evaluator(dict(type='MPIIPCKh', **kwargs))
    evaluator.dataset_meta = dataset_meta
    for start in range(0, len(samples), batch_size):
        evaluator.process(samples[start : start + batch_size])
    return evaluator.evaluate(len(samples))


@pytest.fixture
def log(caplog):
    """What goes through MMEngine's logger at the level that is shown."""
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    yield lambda: [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    logger.removeHandler(caplog.handler)


@pytest.mark.parametrize('weights', ['annotations', 'equal'])
def test_metrics_and_table_are_those_of_the_functions(people, weights, log):
    expected = pckh_metrics(pckh_curves(**people, weights=weights))
    metrics = evaluate(data_samples(**people), weights=weights, dataset_meta=dict(dataset_name='lspet'))
    assert metrics == expected
    assert list(metrics) == COLUMNS and all(type(value) is float for value in metrics.values())
    assert ['\n' + pckh_table({'lspet': expected}, weights=weights)] == log()


def test_tensors_and_visibility_with_weights_beside_it_are_read(people):
    samples = data_samples(**people)
    expected = evaluate(samples)
    for sample in samples:
        visible = sample.gt_instances.keypoints_visible
        sample.gt_instances.keypoints_visible = np.stack([visible, np.ones_like(visible)], axis=-1)
        pred = torch.tensor(sample.pred_instances.keypoints, requires_grad=True)
        sample.pred_instances = InstanceData(keypoints=pred)
    assert evaluate(samples) == expected


def test_stages_are_scored_one_by_one(people):
    samples = data_samples(**people)
    for sample, own, true in zip(samples, people['pred'], people['gt']):
        sample.pred_instances.stage_keypoints = np.stack([own, true, own])[None]
    metrics = evaluate(samples)
    assert metrics['stage0/Mean'] == metrics['stage2/Mean'] == metrics['Mean'] < metrics['stage1/Mean'] == 100


def test_persons_are_sorted_and_padding_is_dropped(people, tmp_path):
    people['gt'][~people['visible']] = np.nan  # which must not make a person differ from itself
    samples = data_samples(**people)
    expected = evaluate(samples)
    shuffled = [samples[row] for row in (*range(30, -1, -1), 3, 3)]
    assert evaluate(shuffled, pred_file=str(tmp_path / 'pred.npz')) == expected
    np.testing.assert_array_equal(np.load(tmp_path / 'pred.npz')['preds'], people['pred'] + 1)


def test_samples_that_cannot_be_scored(people):
    samples = data_samples(**people)
    samples[2].set_metainfo(dict(id=0))
    with pytest.raises(InputError, match='two different persons'):
        evaluate(samples)
    del samples[1].gt_instances.head_size
    with pytest.raises(InputError, match='person 1 has no head size.*headbox_file'):
        evaluate(samples)
    for field in ('pred_instances', 'gt_instances'):
        sample = data_samples(**people)[0].to_dict()
        sample[field]['keypoints'] = np.zeros((1, 14, 2))
        with pytest.raises(InputError, match=r'person 0 .*\(1, 14, 2\)'):
            MPIIPCKh().process(None, [sample])


def test_mistakes_in_the_config_are_found_at_construction():
    with pytest.raises(InputError, match='pred.json'):
        MPIIPCKh(pred_file='pred.json')
    with pytest.raises(InputError, match='weights'):
        MPIIPCKh(weights='joints')


def evaluate_on_rank(rank, folder):
    """One of two processes, with a sampler."""
    os.chdir(folder)
    torch.set_num_threads(1)
    method = f'file://{folder}/rendezvous'
    torch.distributed.init_process_group('gloo', init_method=method, rank=rank, world_size=2)
    samples = data_samples(**np.load('people.npz'))
    sampler = DefaultSampler(samples, shuffle=False)
    loader = torch.utils.data.DataLoader(samples, batch_size=2, collate_fn=list, sampler=sampler)
    outcome = {}
    for collect_device in ('cpu', 'gpu'):  # through files, and through all_gather_object
        metric = dict(type='MPIIPCKh', pred_file=f'pred{rank}.npz', collect_device=collect_device)
        evaluator = Evaluator(metric)
        for batch in loader:
            evaluator.process(batch)
        handed_over = len(evaluator.metrics[0].results)
        outcome[collect_device] = [handed_over, evaluator.evaluate(len(samples))]
    with open(f'outcome{rank}.json', 'w') as file:
        json.dump(outcome, file)
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_metrics_of_one(people, tmp_path):
    # of an odd number, so that the sampler pads
    np.savez(tmp_path / 'people.npz', **people)
    start = torch.multiprocessing.start_processes
    start(evaluate_on_rank, args=(str(tmp_path),), nprocs=2, start_method='fork')

    alone = evaluate(data_samples(**people), pred_file=str(tmp_path / 'alone.npz'))
    for rank in (0, 1):
        outcome = json.loads((tmp_path / f'outcome{rank}.json').read_text())
        assert outcome == dict(cpu=[16, alone], gpu=[16, alone])
    preds = [np.load(tmp_path / f'{name}.npz')['preds'] for name in ('pred0', 'alone')]
    np.testing.assert_array_equal(*preds)
    assert not (tmp_path / 'pred1.npz').exists()


HAND = dict(enumerate(['wrist', 'left_finger', 'right_finger', 'L_nail', 'R_nail']))


def test_other_keypoints_have_columns_by_their_names(people):
    few = {key: people[key][:, :5] for key in ('pred', 'gt', 'visible')} | dict(head_size=people['head_size'])
    meta = dict(flip_indices=[0, 2, 1, 4, 3], keypoint_id2name=HAND)
    assert joint_groups(meta) == dict(Wrist=[0], Finger=[1, 2], Nail=[3, 4])
    metrics = evaluate(data_samples(**few), dataset_meta=meta)
    assert list(metrics) == ['Wrist', 'Finger', 'Nail', 'Mean', 'Mean@0.1', 'AUC']
    values = pckh(**few)[-1]
    assert metrics['Finger'] == pytest.approx(values[[1, 2]].mean())
    assert metrics['Mean'] == pytest.approx(np.average(values, weights=few['visible'].sum(axis=0)))


def test_columns_can_be_chosen_by_name_or_index(people):
    meta = dict(keypoint_name2id=dict(elbow=11, wrist=10, neck=8))
    groups = dict(Arm=['elbow', 10], Neck=[8])
    metrics = evaluate(data_samples(**people), dataset_meta=meta, groups=groups)
    assert list(metrics) == ['Arm', 'Neck', 'Mean', 'Mean@0.1', 'AUC']
    assert metrics['Arm'] == pytest.approx(pckh(**people)[-1][[10, 11]].mean())


@pytest.mark.parametrize('wrong', ['elbo', 12])
def test_a_typo_in_the_columns_is_told_before_the_first_batch(wrong):
    evaluator = Evaluator(dict(type='MPIIPCKh', groups=dict(Arm=['wrist', wrong])))
    with pytest.raises(InputError, match=f'{wrong}.*elbow, wrist'):
        evaluator.dataset_meta = dict(keypoint_name2id=dict(elbow=11, wrist=10))


def test_perfect_predictions_in_pixels_from_0_score_100(real_data):
    root = real_data('mpii_sample')
    truth = str(root / 'annotations/mpii_gt_val.mat')
    files = dict(ann_file='annotations/mpii_val.json', headbox_file=truth, data_root=str(root))
    data = MPIIPoseDataset(**files, data_prefix=dict(img='images/'), test_mode=True)
    keys = ('keypoints', 'keypoints_visible', 'head_size')
    samples = []
    for index in range(len(data)):
        person = data.get_data_info(index)
        truth, pred = {key: person[key] for key in keys}, dict(keypoints=person['keypoints'])
        samples.append(dict(id=person['id'], gt_instances=truth, pred_instances=pred))
    evaluator = Evaluator(dict(type='MPIIPCKh'))
    evaluator.dataset_meta = data.metainfo
    assert evaluator.offline_evaluate(samples)['Mean@0.1'] == pytest.approx(100)


def test_the_score_that_nine_of_ten_right_keypoints_reach(people):
    samples = data_samples(**people | dict(pred=people['gt'].copy()))  # all right, but for one
    scores = np.linspace(0.2, 1, 496).reshape(31, 1, 16)
    for sample, score in zip(samples, scores):
        sample.pred_instances.keypoint_scores = score
    samples[0].pred_instances.keypoints += 1e4
    metric = MPIIPCKh()
    metric.process(None, [sample.to_dict() for sample in samples])
    metric.compute_metrics(metric.results)
    reached = scores[1:, 0][people['visible'][1:]] >= metric.kpt_thr
    assert reached.mean() == pytest.approx(0.9, abs=0.01)
