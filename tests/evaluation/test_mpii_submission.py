import copy
import json
import pickle
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from mmpose.structures import PoseDataSample
from scipy.io import loadmat, savemat

from hg_plugin.datasets import MPIIPoseDataset
from hg_plugin.evaluation.mpii_submission import MPIISubmission
from hg_plugin.utils.errors import InputError

PERSONS = [(0, 1), (1, 0), (1, 1), (2, 1), (4, 0)]  # image and rectangle


@pytest.fixture
def test_set(tmp_path):
    """A folder with a test set as `hg_plugin prepare mpii` leaves it: five persons in four of six images. The
    release has three rectangles in the first five, the last one without a position."""
    shutil.copytree(Path(__file__).with_name('test_set'), tmp_path, dirs_exist_ok=True)
    random = np.random.RandomState(0)
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
        truth = {key: info[key] for key in ('keypoints', 'keypoints_visible')}
        sample.gt_instances = InstanceData(**truth)
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
    assert [image['image'][0, 0]['name'].item()[0] for image in pred[0]] == [*'012345']
    found, scored = [], 0
    for index, image in enumerate(pred[0][:5]):
        for row, rect in enumerate(image['annorect'][0]):
            assert rect['scale'].item() == 1.5 + row and rect['scale'].dtype == np.float64
            if rect['objpos'].size:
                scored += 1
                x = rect['objpos'][0, 0]['x']
                assert x.item() == 30 + row and x.dtype == np.float64
            if 'annopoints' in rect.dtype.names and rect['annopoints'].size:
                (point,) = rect['annopoints'][0, 0]['point']
                assert point.dtype.names == ('x', 'y', 'id')
                assert all(x.dtype == np.float64 for x in point['x'])
                assert [joint.item() for joint in point['id']] == list(range(16))
                found.append((index, row))
                xy = [[x.item(), y.item()] for x, y in zip(point['x'], point['y'])]
                assert np.abs(np.array(xy) - 1 - keypoints[len(found) - 1]).max() < 1e-4
    assert found == PERSONS
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
    with pytest.raises(InputError, match='MPIISubmission'):
        evaluate(samples, data, metric='MPIIPCKh')


def test_the_data_set_is_for_testing_only(data, test_set):
    assert len(data) == 5 and data.metainfo['ann_file'] == str(test_set / 'annotations/mpii_test.json')
    assert not any(data.get_data_info(index)['keypoints_visible'].any() for index in range(5))
    center = np.array([31 - 1, 35 + 15 * 0.25 - 1])
    assert np.allclose(data.get_data_info(0)['bbox'], [[*center - 25, *center + 25]])
    with pytest.raises(InputError, match='annotated joint'):
        MPIIPoseDataset('annotations/mpii_test.json', data_root=str(test_set))


def test_a_set_with_joints_is_no_test_set(samples, data, test_set, tmp_path, edit):
    with edit(test_set / 'annotations/mpii_test.json') as persons:
        for person in persons:
            person['joints_vis'] = [1] * 16
    other = MPIIPoseDataset('annotations/mpii_test.json', data_root=str(test_set), test_mode=True)
    assert 'ann_file' not in other.metainfo
    with pytest.raises(InputError, match='not a test set'):
        evaluate(samples, other, out_file=str(tmp_path / 'pred.mat'))


def edited(change):
    """Changes the annotations."""

    def edit(folder):
        annotations = json.loads((folder / 'mpii_test.json').read_text())
        change(annotations)
        (folder / 'mpii_test.json').write_text(json.dumps(annotations))

    return edit


ANNOLIST = 'mpii_test_annolist.mat'


@pytest.mark.parametrize(
    'break_files, message',
    [
        (lambda folder: (folder / ANNOLIST).unlink(), f'{ANNOLIST} does not exist'),
        (lambda folder: savemat(folder / ANNOLIST, dict(annolist=np.ones((1, 3)))), 'cannot be read'),
        (lambda folder: (folder / 'mpii_test.json').write_text('[{'), 'mpii_test.json cannot be read'),
        (edited(lambda persons: persons[1].pop('person_index')), 'rectangle None in 1.jpg'),
        (edited(lambda persons: persons[1].update(image='3.jpg')), 'do not match'),
        (edited(lambda persons: persons.pop()), 'do not match the 4 persons'),
    ],
)
def test_annotations_that_are_missing_or_wrong(samples, data, test_set, tmp_path, break_files, message):
    break_files(test_set / 'annotations')
    with pytest.raises(InputError, match=message):
        evaluate(samples, data, out_file=str(tmp_path / 'pred.mat'))
    assert not list(tmp_path.glob('pred*'))


def test_predictions_that_are_wrong(samples, data, tmp_path):
    for name, keypoints in (('shape', np.zeros((1, 14, 2))), ('NaN', np.full((1, 16, 2), np.nan))):
        wrong = copy.deepcopy(samples)
        wrong[3].pred_instances = InstanceData(keypoints=keypoints)
        with pytest.raises(InputError, match=f'person 3.*{name}'):
            evaluate(wrong, data, out_file=str(tmp_path / 'pred.mat'))
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='cannot be written'):
        evaluate(samples, data, out_file=str(tmp_path / 'file/pred.mat'))


def test_files_are_checked_before_the_test_and_not_after(samples, test_set):
    with pytest.raises(InputError, match='.mat'):
        MPIISubmission(out_file='pred.json')
    metric = MPIISubmission(ann_file=str(test_set / 'none.json'))
    with pytest.raises(InputError, match='does not exist'):
        metric.process(None, [samples[0].to_dict()])


def test_the_command_line_writes_the_file_and_no_metric(test_set, run, tmp_path):
    config = 'configs/hg_2stack_mpii_test.py'
    cfg = Config.fromfile(config)
    cfg.model.backbone.update(channels=16, num_stacks=1)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), tmp_path / 'small.pth')
    options = [
        *('model.backbone.channels=16', 'model.backbone.num_stacks=1', 'test_dataloader.num_workers=0'),
        *('test_dataloader.persistent_workers=False', f'test_evaluator.out_file={tmp_path}/pred.mat'),
    ]
    arguments = ['--data-root', test_set, '--work-dir', tmp_path / 'work', '--dump', tmp_path / 'all.pkl']
    out = run('tools/test.py', config, tmp_path / 'small.pth', *arguments, '--cfg-options', *options)
    assert 'Traceback' not in out and 'AUC' not in out and 'pred.mat is ready' in out
    dumped = pickle.loads((tmp_path / 'all.pkl').read_bytes())
    keypoints = np.concatenate([sample['pred_instances']['keypoints'] for sample in dumped])
    check_submission(tmp_path / 'pred.mat', keypoints)
