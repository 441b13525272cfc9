import json
import logging
import math
import os
import sys

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from mmpose.registry import DATASETS
from mmpose.structures import PoseDataSample

from hg_plugin.evaluation import (
    MPIIPCKh,
    joint_groups,
    load_ground_truth,
    load_predictions,
    pckh,
    pckh_curves,
    pckh_metrics,
    pckh_table,
)
from hg_plugin.utils.errors import InputError

COLUMNS = ['Head', 'Shoulder', 'Elbow', 'Wrist', 'Hip', 'Knee', 'Ankle', 'Mean', 'Mean@0.1', 'AUC']


def data_samples(pred, gt, visible, head_size):
    """One sample a person, as a model hands them to the evaluator."""
    samples = []
    for row in range(len(pred)):
        sample = PoseDataSample(metainfo=dict(id=row, img_path=f'{row}.jpg'))
        sample.pred_instances = InstanceData(keypoints=pred[row][None], keypoint_scores=np.ones((1, 16)))
        sample.gt_instances = InstanceData(
            keypoints=gt[row][None],
            keypoints_visible=visible[row][None].astype(np.float32),
            head_size=np.array([[head_size[row]]]),
        )
        samples.append(sample)
    return samples


def evaluate(samples, batch_size=4, **kwargs):
    evaluator = Evaluator(dict(type='MPIIPCKh', **kwargs))
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
    people = people(11)
    expected = pckh_metrics(pckh_curves(**people, weights=weights))
    metrics = evaluate(data_samples(**people), weights=weights)
    assert metrics == expected
    assert list(metrics) == COLUMNS and all(type(value) is float for value in metrics.values())
    assert ['\n' + pckh_table({'predictions': expected}, weights=weights)] == log()


def test_its_log_line_names_the_dataset_and_there_is_no_warning_about_a_prefix(people, log):
    evaluator = Evaluator(dict(type='MPIIPCKh'))
    evaluator.dataset_meta = dict(dataset_name='lspet')
    evaluator.process(data_samples(**people(3)))
    evaluator.evaluate(3)
    (table,) = log()
    assert table.splitlines()[-1].startswith('lspet ')


def test_a_prefix_that_is_asked_for_is_there(people):
    assert list(evaluate(data_samples(**people(3)), prefix='val')) == [f'val/{column}' for column in COLUMNS]


def test_tensors_and_visibility_with_weights_beside_it_are_read(people):
    people = people(5)
    samples = data_samples(**people)
    expected = evaluate(samples)
    for sample in samples:
        visible = sample.gt_instances.keypoints_visible
        sample.gt_instances.keypoints_visible = np.stack([visible, np.ones_like(visible)], axis=-1)
        pred = torch.tensor(sample.pred_instances.keypoints, requires_grad=True)
        sample.pred_instances = InstanceData(keypoints=pred)
    assert evaluate(samples) == expected


def test_only_what_is_needed_is_kept(people):
    metric = MPIIPCKh()
    metric.process(None, [sample.to_dict() for sample in data_samples(**people(2))])
    assert [set(result) for result in metric.results] == [{'id', 'pred', 'gt', 'visible', 'head_size'}] * 2
    assert metric.results[1]['visible'].dtype == bool and type(metric.results[1]['head_size']) is float


def test_a_set_without_pelvis_and_thorax_has_every_metric(people):
    people = people(9)
    people['visible'][:, [6, 7]] = False
    for weights in ('annotations', 'equal'):
        assert not any(
            math.isnan(value) for value in evaluate(data_samples(**people), weights=weights).values()
        )


def test_stages_are_scored_one_by_one(people):
    people = people(11)
    samples = data_samples(**people)
    for sample, own, true in zip(samples, people['pred'], people['gt']):
        sample.pred_instances.stage_keypoints = np.stack([own, true, own])[None]
    metrics = evaluate(samples)
    assert metrics['stage0/Mean'] == metrics['stage2/Mean'] == metrics['Mean'] < metrics['stage1/Mean'] == 100


def test_persons_are_sorted_and_padding_is_dropped(people, tmp_path):
    people = people(6)
    people['gt'][~people['visible']] = np.nan  # which must not make a person differ from itself
    samples = data_samples(**people)
    expected = evaluate(samples)
    shuffled = [samples[row] for row in (3, 0, 5, 1, 4, 2, 3, 3)]
    assert evaluate(shuffled, pred_file=str(tmp_path / 'pred.npz')) == expected
    np.testing.assert_array_equal(np.load(tmp_path / 'pred.npz')['preds'], people['pred'] + 1)


def test_two_persons_with_one_id_are_an_error(people):
    samples = data_samples(**people(3))
    samples[2].set_metainfo(dict(id=0))
    with pytest.raises(InputError, match='two different persons have the id 0'):
        evaluate(samples)


def test_a_set_without_head_sizes_names_the_option(people):
    samples = data_samples(**people(2))
    del samples[1].gt_instances.head_size
    with pytest.raises(InputError, match="person 1 has no head size; set the dataset's headbox_file"):
        evaluate(samples)


@pytest.mark.parametrize('field', ['pred_instances', 'gt_instances'])
@pytest.mark.parametrize('joints', [14, 17])
def test_another_number_of_joints_is_named(people, field, joints):
    sample = data_samples(**people(1))[0].to_dict()
    sample[field]['keypoints'] = np.zeros((1, joints, 2))
    with pytest.raises(
        InputError, match=rf'person 0 have shape .*\(1, {joints}, 2\).* of the same keypoints'
    ):
        MPIIPCKh().process(None, [sample])


def test_mistakes_in_the_config_are_found_at_construction(tmp_path):
    with pytest.raises(InputError, match='pred.json does not end in .npz or .mat'):
        MPIIPCKh(pred_file=str(tmp_path / 'pred.json'))
    with pytest.raises(InputError, match="weights is 'joints'"):
        MPIIPCKh(weights='joints')


def noisy(truth, seed=0):
    """Predictions as a network makes them, float32, off by a share of the head."""
    random = np.random.RandomState(seed)
    noise = random.standard_t(2, truth['gt'].shape) * 0.1 * truth['head_size'][:, None, None]
    return (truth['gt'] + noise).astype(np.float32)


@pytest.mark.parametrize('suffix', ['.mat', '.npz'])
def test_metric_and_saved_file_agree_to_the_last_digit_on_mpii(mpii_annotations, tmp_path, suffix):
    truth = load_ground_truth(mpii_annotations / 'mpii_gt_val.mat')
    path = str(tmp_path / f'pred{suffix}')
    metrics = evaluate(data_samples(pred=noisy(truth), **truth), batch_size=64, pred_file=path)
    assert metrics == pckh_metrics(pckh_curves(load_predictions(path, 2958), **truth))
    assert 60 < metrics['Mean'] < 99 and metrics['Mean@0.1'] < metrics['AUC'] < metrics['Mean']


def test_metric_on_the_json_agrees_with_the_mat_but_for_its_13_other_joints(mpii_annotations):
    truth = load_ground_truth(mpii_annotations / 'mpii_gt_val.mat')
    pred = noisy(truth)
    with open(mpii_annotations / 'mpii_val.json') as file:
        people = json.load(file)
    joints = np.array([person['joints'] for person in people], np.float32) - 1
    visible = np.array([person['joints_vis'] for person in people])
    other = (np.linalg.norm(joints - truth['gt'], axis=-1) > 0.01) & truth['visible']
    assert other.sum() == 13
    published = pckh_metrics(pckh_curves(pred, **truth))
    ours = evaluate(data_samples(pred, joints, visible, truth['head_size']), batch_size=64)
    # five head tops of 2,932 are the most that differ in a column: 0.17; in the mean, 13 of 41,352: 0.03
    assert published != ours
    assert ours == pytest.approx(published, abs=0.18)
    assert ours['Mean'] == pytest.approx(published['Mean'], abs=0.04)

    # Without them nothing is left but the rounding of the JSON to 0.001 pixels.
    truth['visible'] &= ~other
    ours = evaluate(data_samples(pred, joints, truth['visible'], truth['head_size']), batch_size=64)
    assert ours == pytest.approx(pckh_metrics(pckh_curves(pred, **truth)), abs=0.01)


def evaluate_on_rank(rank, folder):
    """One of two processes, with a sampler; what each prints and writes has the rank in its name."""
    os.chdir(folder)
    sys.stdout.flush()
    output = os.open(f'output{rank}.txt', os.O_WRONLY | os.O_CREAT)
    for stream in (1, 2):
        os.dup2(output, stream)
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    samples = data_samples(**np.load('people.npz'))
    loader = torch.utils.data.DataLoader(
        samples, batch_size=2, collate_fn=list, sampler=DefaultSampler(samples, shuffle=False)
    )
    outcome = {}
    for collect_device in ('cpu', 'gpu'):  # through files, and through all_gather_object
        evaluator = Evaluator(
            dict(type='MPIIPCKh', pred_file=f'pred{rank}.npz', collect_device=collect_device)
        )
        for batch in loader:
            evaluator.process(batch)
        handed_over = len(evaluator.metrics[0].results)
        outcome[collect_device] = [handed_over, evaluator.evaluate(len(samples))]
    with open(f'outcome{rank}.json', 'w') as file:
        json.dump(outcome, file)
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_metrics_of_one(people, tmp_path):
    people = people(11)  # odd, so that the sampler pads
    np.savez(tmp_path / 'people.npz', **people)
    torch.multiprocessing.spawn(evaluate_on_rank, args=(str(tmp_path),), nprocs=2)

    alone = evaluate(data_samples(**people), pred_file=str(tmp_path / 'alone.npz'))
    for rank in (0, 1):
        assert json.loads((tmp_path / f'outcome{rank}.json').read_text()) == dict(
            cpu=[6, alone], gpu=[6, alone]
        )
    np.testing.assert_array_equal(
        np.load(tmp_path / 'pred0.npz')['preds'], np.load(tmp_path / 'alone.npz')['preds']
    )
    assert not (tmp_path / 'pred1.npz').exists()
    assert (tmp_path / 'output0.txt').read_text().count('Mean@0.1') == 2
    assert 'Mean@0.1' not in (tmp_path / 'output1.txt').read_text()


def test_save_best_finds_the_key_mean(people, tmp_path):
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    people = people(4)
    dataset = [dict(inputs=torch.zeros(1), data_samples=sample) for sample in data_samples(**people)]

    class Model(BaseModel):
        """Repeats the predictions that are in the samples."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, inputs, data_samples=None, mode='tensor'):
            return dict(loss=self.weight.sum()) if mode == 'loss' else data_samples

    loader = dict(
        batch_size=2,
        num_workers=0,
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
    )
    Runner(
        Model(),
        str(tmp_path),
        train_dataloader=loader,
        val_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=2),
        val_cfg=dict(),
        val_evaluator=dict(type='MPIIPCKh'),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        experiment_name=f'save_best_{tmp_path.name}',
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='Mean', rule='greater')),
        log_level=logging.WARNING,
    ).train()
    assert (tmp_path / 'best_Mean_epoch_1.pth').is_file()


HAND = dict(enumerate(['wrist', 'left_finger', 'right_finger', 'L_nail', 'R_nail']))


def test_other_keypoints_have_columns_by_their_names(people):
    people = people(9)
    few = {key: people[key][:, :5] for key in ('pred', 'gt', 'visible')} | dict(head_size=people['head_size'])
    evaluator = Evaluator(dict(type='MPIIPCKh'))
    evaluator.dataset_meta = dict(
        dataset_name='hand', flip_indices=[0, 2, 1, 4, 3], keypoint_id2name=HAND, num_keypoints=5
    )
    assert joint_groups(evaluator.dataset_meta) == dict(Wrist=[0], Finger=[1, 2], Nail=[3, 4])
    evaluator.process(data_samples(**few))
    metrics = evaluator.evaluate(9)
    assert list(metrics) == ['Wrist', 'Finger', 'Nail', 'Mean', 'Mean@0.1', 'AUC']
    values = pckh(**few)[-1]
    assert metrics['Finger'] == pytest.approx(values[[1, 2]].mean())
    assert metrics['Mean'] == pytest.approx(np.average(values, weights=few['visible'].sum(axis=0)))


def test_columns_can_be_chosen_by_name_or_index(people):
    people = people(9)
    evaluator = Evaluator(dict(type='MPIIPCKh', groups=dict(Arm=['elbow', 10], Neck=[8])))
    evaluator.dataset_meta = dict(keypoint_name2id=dict(elbow=11, wrist=10, neck=8))
    evaluator.process(data_samples(**people))
    metrics = evaluator.evaluate(9)
    assert list(metrics) == ['Arm', 'Neck', 'Mean', 'Mean@0.1', 'AUC']
    assert metrics['Arm'] == pytest.approx(pckh(**people)[-1][[10, 11]].mean())


@pytest.mark.parametrize('wrong, hint', [('elbo', 'elbow'), (12, 'elbow, wrist')])
def test_a_typo_in_the_columns_is_told_before_the_first_batch(wrong, hint):
    evaluator = Evaluator(dict(type='MPIIPCKh', groups=dict(Arm=['wrist', wrong])))
    with pytest.raises(InputError, match=f'{wrong}.*{hint}'):
        evaluator.dataset_meta = dict(keypoint_name2id=dict(elbow=11, wrist=10))


def test_perfect_predictions_in_pixels_from_0_score_100(real_data):
    root = real_data('mpii_sample')
    truth = str(root / 'annotations/mpii_gt_val.mat')
    files = dict(ann_file='annotations/mpii_val.json', headbox_file=truth, data_root=str(root))
    data = DATASETS.build(
        dict(type='MPIIPoseDataset', **files, data_prefix=dict(img='images/'), test_mode=True)
    )
    items = [data.get_data_info(index) for index in range(len(data))]
    keys = ('keypoints', 'keypoints_visible', 'head_size')
    samples = [
        dict(
            id=item['id'],
            gt_instances={key: item[key] for key in keys},
            pred_instances=dict(keypoints=item['keypoints']),
        )
        for item in items
    ]
    evaluator = Evaluator(dict(type='MPIIPCKh'))
    evaluator.dataset_meta = data.metainfo
    assert evaluator.offline_evaluate(samples)['Mean@0.1'] == pytest.approx(100)
