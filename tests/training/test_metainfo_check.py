import copy
import re

import pytest
from mmengine.config import Config

from hg_plugin.training.metainfo_check import metainfo_problems

SWAPS = dict(nose='', left_eye='right_eye', right_eye='left_eye', left_ear='right_ear', right_ear='left_ear')
GOOD = dict(
    keypoint_info={i: dict(name=name, id=i, swap=swap) for i, (name, swap) in enumerate(SWAPS.items())},
    skeleton_info={0: dict(link=('nose', 'left_eye'), id=0)},
    dataset_name='cat',
    joint_weights=[1.0] * 5,
    sigmas=[0.05] * 5,
)


def edited(keypoint=None, **changes):
    metainfo = copy.deepcopy(GOOD)
    if keypoint is None:
        metainfo.update(changes)
    else:
        metainfo['keypoint_info'][keypoint].update(changes)
    return metainfo


def renumbered(number):
    return {
        **GOOD,
        'keypoint_info': {number(i): {**each, 'id': number(i)} for i, each in GOOD['keypoint_info'].items()},
    }


def problems(metainfo):
    dataset = dict(type='Repeat', dataset=dict(type='A', metainfo=metainfo))
    return [*metainfo_problems(Config(dict(train_dataloader=dict(dataset=dataset))))]


@pytest.mark.parametrize(
    'metainfo, words',
    [
        (edited(1, swap='right_eyes'), "'left_eye' .*'right_eyes'.*'right_eye'"),
        (edited(2, swap=''), "'left_eye' swaps with 'right_eye', which swaps with ''"),
        (edited(3, swap='left_eye'), "'left_ear' swaps with 'left_eye', which swaps with 'right_eye'"),
        (edited(4, name='nose'), "name 'nose'"),
        (edited(4, id=3), "'right_ear' has the key 4 and the id 3"),
        (renumbered(lambda i: i + 1), '1, 2, 3, 4, 5.*0 to 4'),
        (renumbered(str), "'0', '1'.*0 to 4"),
        (edited(skeleton_info={0: dict(link=('nose', 'lefteye'))}), "link 0 .*'lefteye'.* 'left_eye'"),
        (edited(joint_weights=[1.0] * 4), 'joint_weights has 4 values for 5'),
    ],
)
def test_a_slip_is_one_sentence_that_names_the_entry(metainfo, words):
    first = problems(metainfo)[0]
    assert re.search(words, first) and first.startswith('train_dataloader.dataset.dataset.metainfo')


def test_what_is_right(tmp_path):
    assert not problems(GOOD) and not problems(edited(0, swap='nose')) and not problems(edited(sigmas=[]))
    assert not problems(dict(from_file='configs/_base_/datasets/coco.py'))
    file = tmp_path / 'own.py'
    file.write_text(f'dataset_info = {edited(2, swap="")!r}')
    assert str(file) in problems(dict(from_file=str(file)))[0]
