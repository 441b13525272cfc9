import copy
import json
import logging
import pickle
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from mmpose.structures import PoseDataSample
from scipy.io import loadmat, savemat

from hg_plugin.datasets import MPIIPoseDataset
from hg_plugin.evaluation.mpii_submission import MPIISubmission
from hg_plugin.utils.errors import InputError

EMPTY = np.empty((0, 0))


def structs(*records):
    """A struct array (1, N)."""
    array = np.empty((1, len(records)), [(name, object) for name in records[0]])
    for index, record in enumerate(records):
        array[0, index] = tuple(record.values())
    return array


@pytest.fixture
def test_set(tmp_path):
    """A folder with the annotations of a test set: five persons in four of six images."""
    random = np.random.RandomState(0)
    images = []
    for index in range(6):
        rects = structs(
            *[
                dict(scale=1.5 + row, objpos=dict(x=30.0 + row, y=35.0) if row < 2 else EMPTY)
                for row in range(3)
            ]
        )
        if index == 2:  # some have a field without content
            rects = structs(
                *[
                    dict(x1=1.0, annopoints=EMPTY, scale=rect['scale'], objpos=rect['objpos'])
                    for rect in rects[0]
                ]
            )
        if index == 5:
            rects = EMPTY
        images.append(dict(image=dict(name=f'{index}.jpg'), annorect=rects, frame_sec=7.0))
    (tmp_path / 'annotations').mkdir()
    savemat(tmp_path / 'annotations/mpii_test_annolist.mat', dict(annolist=structs(*images)))
    (tmp_path / 'annotations/mpii_test.json').write_text(
        json.dumps(
            [
                dict(
                    image=f'{index}.jpg',
                    center=[30.0 + row, 35.0],
                    scale=0.25,
                    joints=[[-1.0, -1.0]] * 16,
                    joints_vis=[0] * 16,
                    image_index=10 + index,
                    person_index=row,
                )
                for index, row in ((0, 1), (1, 0), (1, 1), (2, 1), (4, 0))
            ]
        )
    )
    (tmp_path / 'images').mkdir()
    for index in range(6):
        cv2.imwrite(str(tmp_path / f'images/{index}.jpg'), random.randint(0, 255, (70, 60, 3), np.uint8))
    return tmp_path


@pytest.fixture
def data(test_set):
    return MPIIPoseDataset('annotations/mpii_test.json', data_root=str(test_set), test_mode=True)


@pytest.fixture
def samples(data):
    """One sample a person, as a model hands them to the evaluator."""
    random = np.random.RandomState(1)
    samples = []
    for index in range(len(data)):
        info = data.get_data_info(index)
        sample = PoseDataSample(metainfo=dict(id=info['id'], img_path=info['img_path']))
        sample.pred_instances = InstanceData(keypoints=random.uniform(0, 60, (1, 16, 2)).astype(np.float32))
        sample.gt_instances = InstanceData(
            keypoints=info['keypoints'], keypoints_visible=info['keypoints_visible']
        )
        samples.append(sample)
    return samples


def evaluate(samples, data, metric='MPIISubmission', batch_size=2, **kwargs):
    evaluator = Evaluator(dict(type=metric, **kwargs))
    evaluator.dataset_meta = data.metainfo
    for start in range(0, len(samples), batch_size):
        evaluator.process(samples[start : start + batch_size])
    return evaluator.evaluate(len(samples))


def check_submission(path, keypoints):
    """A file has these predictions, (5, 16, 2) in 0-based pixels, and all that the test set had before."""
    pred = loadmat(path, mat_dtype=True)['pred']
    assert pred.shape == (1, 6) and pred.dtype.names == ('image', 'annorect', 'frame_sec')
    assert [image['image'][0, 0]['name'].item() for image in pred[0]] == [
        f'{index}.jpg' for index in range(6)
    ]
    found, scored = [], 0
    for index, image in enumerate(pred[0][:5]):
        for row, rect in enumerate(image['annorect'][0]):
            assert rect['scale'].item() == 1.5 + row and rect['scale'].dtype == np.float64
            if rect['objpos'].size:
                scored += 1
                assert (
                    rect['objpos'][0, 0]['x'].item() == 30 + row
                    and rect['objpos'][0, 0]['x'].dtype == np.float64
                )
            if 'annopoints' in rect.dtype.names and rect['annopoints'].size:
                (point,) = rect['annopoints'][0, 0]['point']
                assert point.dtype.names == ('x', 'y', 'id') and all(
                    x.dtype == np.float64 for x in point['x']
                )
                assert [joint.item() for joint in point['id']] == list(range(16))
                found.append((index, row))
                xy = [[x.item(), y.item()] for x, y in zip(point['x'], point['y'])]
                assert np.abs(np.array(xy) - 1 - keypoints[len(found) - 1]).max() < 1e-4
    assert found == [(0, 1), (1, 0), (1, 1), (2, 1), (4, 0)]
    assert scored == 10  # the server tells persons apart by this, so the others' must stay
    assert pred[0, 5]['annorect'].size == 0


def test_every_person_has_its_joints_in_the_structure_of_the_release(samples, data, tmp_path):
    out = tmp_path / 'new/pred.mat'
    assert evaluate(samples, data, out_file=str(out)) == {}
    keypoints = np.concatenate([sample.pred_instances.keypoints for sample in samples])
    check_submission(out, keypoints)
    for sample in samples:
        sample.pred_instances.keypoints = torch.tensor(sample.pred_instances.keypoints, requires_grad=True)
    shuffled = [samples[index] for index in (3, 0, 4, 1, 2, 3)]  # one twice, as a distributed sampler pads
    assert evaluate(shuffled, data, out_file=str(out), batch_size=4) == {}
    check_submission(out, keypoints)
    assert [path.name for path in out.parent.iterdir()] == ['pred.mat']


def test_the_annotations_can_be_named(samples, data, test_set, tmp_path):
    ann_file = str(shutil.copytree(test_set / 'annotations', tmp_path / 'moved') / 'mpii_test.json')
    metric = MPIISubmission(out_file=str(tmp_path / 'pred.mat'), ann_file=ann_file)
    metric.process(None, [sample.to_dict() for sample in samples])
    assert metric.evaluate(len(samples)) == {} and (tmp_path / 'pred.mat').exists()


def test_pckh_is_refused(samples, data):
    with pytest.raises(InputError, match='MPIIPCKh: person 0 has no head size.*test set.*MPIISubmission'):
        evaluate(samples, data, metric='MPIIPCKh')


def test_the_data_set_is_for_testing_only(data, test_set):
    assert len(data) == 5 and data.metainfo['ann_file'] == str(test_set / 'annotations/mpii_test.json')
    assert not any(data.get_data_info(index)['keypoints_visible'].any() for index in range(5))
    center = np.array([31 - 1, 35 + 15 * 0.25 - 1])
    assert np.allclose(data.get_data_info(0)['bbox'], [[*center - 25, *center + 25]])
    with pytest.raises(InputError, match='mpii_test.json.* has an annotated joint'):
        MPIIPoseDataset('annotations/mpii_test.json', data_root=str(test_set))


def test_a_set_with_joints_is_no_test_set(samples, data, test_set, tmp_path):
    path = test_set / 'annotations/mpii_test.json'
    annotations = json.loads(path.read_text())
    for annotation in annotations:
        annotation['joints_vis'] = [1] * 16
    path.write_text(json.dumps(annotations))
    other = MPIIPoseDataset('annotations/mpii_test.json', data_root=str(test_set), test_mode=True)
    assert 'ann_file' not in other.metainfo
    with pytest.raises(InputError, match='not a test set'):
        evaluate(samples, other, out_file=str(tmp_path / 'pred.mat'))


def break_annotations(change):
    def break_file(folder):
        path = folder / 'mpii_test.json'
        annotations = json.loads(path.read_text())
        change(annotations)
        path.write_text(json.dumps(annotations))

    return break_file


@pytest.mark.parametrize(
    'break_files, message',
    [
        (
            lambda folder: (folder / 'mpii_test_annolist.mat').unlink(),
            'mpii_test_annolist.mat does not exist',
        ),
        (lambda folder: (folder / 'mpii_test.json').unlink(), 'mpii_test.json does not exist'),
        (lambda folder: (folder / 'mpii_test.json').write_text('[{'), 'mpii_test.json cannot be read'),
        (
            lambda folder: (folder / 'mpii_test_annolist.mat').write_bytes(b'x' * 200),
            'test_annolist.mat cannot be read',
        ),
        (
            lambda folder: savemat(folder / 'mpii_test_annolist.mat', dict(pred=1)),
            "cannot be read .KeyError: 'annolist'",
        ),
        (
            lambda folder: savemat(folder / 'mpii_test_annolist.mat', dict(annolist=np.ones((1, 3)))),
            'cannot be read',
        ),
        (
            break_annotations(lambda a: a[1].pop('person_index')),
            'no rectangle None in 1.jpg, which annotation 1 of',
        ),
        (
            break_annotations(lambda a: a[1].update(person_index=3)),
            'no rectangle 3 in 1.jpg, which annotation 1 of',
        ),
        (break_annotations(lambda a: a[1].update(person_index=-1)), 'no rectangle -1 in 1.jpg'),
        (
            break_annotations(lambda a: a[1].update(image='3.jpg')),
            'predictions for 5 persons do not match the 5 persons of .*mpii_test.json',
        ),
        (
            break_annotations(lambda a: a.pop()),
            'predictions for 5 persons do not match the 4 persons of .*mpii_test.json',
        ),
        (
            break_annotations(lambda a: a.append(a[0])),
            'predictions for 5 persons do not match the 6 persons of .*mpii_test.json',
        ),
    ],
)
def test_annotations_that_are_missing_or_wrong(samples, data, test_set, tmp_path, break_files, message):
    break_files(test_set / 'annotations')
    with pytest.raises(InputError, match=message) as error:
        evaluate(samples, data, out_file=str(tmp_path / 'pred.mat'))
    assert '\n' not in str(error.value) and not list(tmp_path.glob('pred*'))


def test_predictions_that_are_wrong(samples, data, tmp_path):
    for name, keypoints in (('shape', np.zeros((1, 14, 2))), ('NaN', np.full((1, 16, 2), np.nan))):
        wrong = copy.deepcopy(samples)
        wrong[3].pred_instances = InstanceData(keypoints=keypoints)
        with pytest.raises(InputError, match=f'the prediction for person 3.*{name}'):
            evaluate(wrong, data, out_file=str(tmp_path / 'pred.mat'))
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='pred.mat cannot be written'):
        evaluate(samples, data, out_file=str(tmp_path / 'file/pred.mat'))


def test_only_a_mat_file_is_taken():
    with pytest.raises(InputError, match='pred.json does not end in .mat'):
        MPIISubmission(out_file='pred.json')


def test_files_are_looked_for_before_the_test_and_not_after(samples, test_set):
    metric = MPIISubmission(ann_file=str(test_set / 'none.json'))
    with pytest.raises(InputError, match='does not exist'):
        metric.process(None, [samples[0].to_dict()])


def test_its_log_says_who_knows_the_pckh(samples, data, tmp_path, caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    evaluate(samples, data, out_file=str(tmp_path / 'pred.mat'))
    logger.removeHandler(caplog.handler)
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
    assert len(lines) == 2 and '5 persons' in lines[0] and "alone knows the test set's PCKh" in lines[1]


def test_the_command_line_writes_the_file_and_no_metric(test_set, run, tmp_path):
    config = 'configs/hg_2stack_mpii_test.py'
    small = ['model.backbone.channels=16', 'model.backbone.num_stacks=1']
    options = [
        'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
        f'test_evaluator.out_file={tmp_path}/pred.mat',
    ]
    cfg = Config.fromfile(config)
    cfg.model.backbone.update(channels=16, num_stacks=1)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), tmp_path / 'small.pth')
    code, out = run(
        'tools/test.py',
        config,
        tmp_path / 'small.pth',
        '--data-root',
        test_set,
        '--work-dir',
        tmp_path / 'work',
        '--dump',
        tmp_path / 'all.pkl',
        '--cfg-options',
        *small,
        *options,
    )
    assert code == 0, out
    assert 'Traceback' not in out and 'AUC' not in out and 'pred.mat is ready' in out
    dumped = pickle.loads((tmp_path / 'all.pkl').read_bytes())
    keypoints = np.concatenate([sample['pred_instances']['keypoints'] for sample in dumped])
    check_submission(tmp_path / 'pred.mat', keypoints)
