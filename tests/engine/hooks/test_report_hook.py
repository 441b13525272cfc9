import json
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.hooks import Hook
from toy_training import build

from hg_plugin.engine.hooks.report_hook import PREDICTIONS, ReportHook
from hg_plugin.evaluation import MPIIPCKh
from hg_plugin.evaluation.pckh import MPII_FLIP
from hg_plugin.report.persons import read_persons


class Talker(Hook):
    """Logs a message that is no event, and one of each sort."""

    def after_train_iter(self, runner, batch_idx, **_):
        if runner.iter == 3:
            runner.logger.info('nothing')
            runner.logger.info('ended', extra=dict(kind='signal'))
            runner.logger.error('two\nlines')


def test_record_events_and_the_command(tmp_path):
    killed = tmp_path / 'killed' / 'run.json.host-1-0.partial', tmp_path / f'{PREDICTIONS}.host-1-1.partial'
    killed[0].parent.mkdir()
    for path in killed:
        path.touch()
    runner = build(tmp_path, **{'default_hooks.report': dict(type='ReportHook')})
    runner.register_hook(Talker())
    runner.train()
    (file,) = tmp_path.glob('*/run.json')
    folder, record = file.parent, json.loads(file.read_text())
    assert record['environment']['torch'] and record['processes'] == 1 and 'thread' in record['device']
    assert (record['start'], record['resumed'], record['per_epoch']) == (0, 0, 2)
    assert (record['iter'], record['complete']) == (6, True) and record['run_id'] and 0 < record['seconds']
    events = [json.loads(line) for line in (folder / 'events.jsonl').read_text().splitlines()]
    events = [(event['level'], event['kind'], event['text']) for event in events if event['iter'] == 3]
    assert events == [('INFO', 'signal', 'ended'), ('ERROR', 'other', 'two\nlines')]
    assert f'hg_plugin report {tmp_path}' in (folder / f'{folder.name}.log').read_text()
    assert not list(tmp_path.glob('**/*.partial'))
    assert not (tmp_path / PREDICTIONS).exists()  # its model finds no keypoints


def sample(index):
    """A person of 2 stages whose keypoints are its index."""
    found = dict(keypoints=np.full((1, 16, 2), index, np.float32))
    found['stage_keypoints'] = np.full((1, 2, 16, 2), index, np.float32)
    truth = dict(keypoints=np.zeros((1, 16, 2)), keypoints_visible=np.ones((1, 16, 2)))
    truth.update(head_size=np.full((1, 1), 10.0), bboxes=np.ones((1, 4), np.float32))
    meta = dict(id=index, img_path=f'{index}.jpg', input_center=np.zeros(2), input_scale=np.ones(2))
    return dict(**meta, gt_instances=truth, pred_instances=found)


@pytest.fixture
def validate(tmp_path, monkeypatch):
    """Ends a validation of these persons, in a training in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ReportHook, '_write_record', lambda *_: None)
    hook = ReportHook()
    hook.events = True

    def validate(order, **metainfo):
        metric = MPIIPCKh()
        metric.dataset_meta = metainfo
        metric.process(None, map(sample, order))
        metric.compute_metrics(metric.results)
        evaluator = SimpleNamespace(metrics=[metric])
        hook.after_val_epoch(SimpleNamespace(work_dir='.', timestamp='start', val_evaluator=evaluator))

    return validate


def test_predictions_of_a_validation(validate, tmp_path):
    """In the order of annotations, each once; and a later validation replaces them."""
    for order in ([2, 0, 1, 0], [1, 0]):
        validate(order, flip_indices=MPII_FLIP)
        persons = read_persons(tmp_path / PREDICTIONS)
        assert persons.ids.tolist() == sorted(set(order)) and persons.run == 'start'
        assert persons.keypoints.shape == (len(persons.ids), 2, 16, 2)
        assert persons.keypoints[:, 0, 0, 0].tolist() == sorted(set(order))
        assert persons.images[1] == str(tmp_path / '1.jpg') and persons.head_size[0] == 10
        assert persons.annotated.all()
    assert [file.name for file in tmp_path.iterdir()] == [PREDICTIONS]


def test_no_predictions_of_other_joints(validate, tmp_path):
    names = {index: str(index) for index in range(16)}
    validate([0], flip_indices=[*range(16)], keypoint_id2name=names)
    assert not list(tmp_path.iterdir())
