import json
from types import SimpleNamespace

import numpy as np
from mmengine.hooks import Hook
from mmengine.structures import InstanceData
from mmpose.structures import PoseDataSample
from toy_training import build

from hg_plugin.engine.hooks.report_hook import PREDICTIONS, ReportHook, read_record
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
    folder, record = file.parent, read_record(file)
    assert record['environment']['torch'] and record['processes'] == 1 and 'thread' in record['device']
    assert (record['start'], record['resumed'], record['per_epoch']) == (0, 0, 2)
    assert (record['iter'], record['complete']) == (6, True) and record['run_id'] and 0 < record['seconds']
    events = [json.loads(line) for line in (folder / 'events.jsonl').read_text().splitlines()]
    events = [(event['iter'], event['level'], event['kind'], event['text']) for event in events]
    assert [event for event in events if event[0] == 3] == [
        (3, 'INFO', 'signal', 'ended'),
        (3, 'ERROR', 'other', 'two\nlines'),
    ]
    assert f'hg_plugin report {tmp_path}' in (folder / f'{folder.name}.log').read_text()
    assert not list(tmp_path.glob('**/*.partial'))
    assert not (tmp_path / PREDICTIONS).exists()  # its model finds no keypoints


def sample(index):
    """A person of 2 stages whose keypoints are its index."""
    found = InstanceData(keypoints=np.full((1, 16, 2), index, np.float32))
    found.keypoint_scores = np.ones((1, 16), np.float32)
    found.stage_keypoints = np.full((1, 2, 16, 2), index, np.float32)
    truth = InstanceData(keypoints=np.zeros((1, 16, 2)), keypoints_visible=np.ones((1, 16, 2)))
    truth.head_size, truth.bboxes = np.full((1, 1), 10.0), np.ones((1, 4), np.float32)
    meta = dict(id=index, img_path=f'{index}.jpg', input_center=np.zeros(2), input_scale=np.ones(2))
    return PoseDataSample(metainfo=meta, gt_instances=truth, pred_instances=found)


def runner_of(folder, **metainfo):
    """What the hook needs of a runner."""
    loader = SimpleNamespace(dataset=SimpleNamespace(metainfo=metainfo))
    return SimpleNamespace(
        work_dir=str(folder), timestamp='20260101_000000', epoch=1, iter=20, val_dataloader=loader
    )


def test_predictions_of_a_validation(tmp_path, monkeypatch):
    """In the order of annotations, each once; and a later validation replaces them."""
    monkeypatch.chdir(tmp_path)
    hook, runner = ReportHook(), runner_of(tmp_path, flip_indices=MPII_FLIP)
    hook.device = None  # a training has begun
    for order in ([2, 0, 1, 0], [1, 0]):
        hook.before_val_epoch(runner)
        for index in order:
            hook.after_val_iter(runner, 0, outputs=[sample(index)])
        hook.after_val_epoch(runner, {})
        runner.epoch += 1
        persons = read_persons(tmp_path / PREDICTIONS)
        assert persons.ids.tolist() == sorted(set(order))
        assert persons.keypoints.shape == (len(persons.ids), 2, 16, 2)
        assert persons.keypoints[:, 0, 0, 0].tolist() == sorted(set(order))
        assert persons.images[1] == str(tmp_path / '1.jpg') and persons.head_size[0] == 10
        assert persons.annotated.all()
    assert [file.name for file in tmp_path.iterdir()] == [PREDICTIONS]


def test_no_predictions_of_other_joints(tmp_path):
    names = {index: str(index) for index in range(16)}
    runner = runner_of(tmp_path, flip_indices=[*range(16)], keypoint_id2name=names)
    hook = ReportHook()
    hook.device, hook.persons = None, []
    hook.after_val_iter(runner, 0, outputs=[sample(0)])
    hook.after_val_epoch(runner, {})
    assert not list(tmp_path.iterdir())
