import contextlib
import copy
from pathlib import Path

import pytest
from mmengine.config import Config

from hg_plugin.training.config_check import check_config
from hg_plugin.utils.errors import InputError

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.mark.parametrize(
    'line, message',
    [
        ("codec = dict(type='UDPHeatmap')", 'sets codec, .*set model.codec'),
        ("data_root = 'data/other/'", "sets data_root to 'data/other/'"),
    ],
)
def test_a_variable_that_only_the_base_has_read(tmp_path, line, message):
    (tmp_path / 'child.py').write_text(f"_base_ = ['{CONFIGS}/hg_2stack_mpii.py']\n{line}")
    with pytest.raises(InputError, match=message):
        check_config(Config.fromfile(tmp_path / 'child.py'))


def test_a_config_that_a_run_has_written_passes(tmp_path):
    cfg = Config.fromfile(CONFIGS / 'hg_2stack_mpii.py')
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = 'elsewhere'
    cfg.dump(tmp_path / 'config.py')
    check_config(Config.fromfile(tmp_path / 'config.py'))


@pytest.mark.parametrize('old', [False, True])
def test_a_torch_that_counts_batches_twice_is_refused(monkeypatch, old):
    monkeypatch.setattr('hg_plugin.training.config_check.torch_before', lambda version: old)
    cfg = Config.fromfile(CONFIGS / 'hg_2stack_mpii.py')
    cfg.merge_from_dict({'compile': True, 'model.backbone.with_cp': True})
    with pytest.raises(InputError, match='torch 2.9') if old else contextlib.nullcontext():
        check_config(cfg)


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
    points = GOOD['keypoint_info'].items()
    return edited(keypoint_info={number(i): {**each, 'id': number(i)} for i, each in points})


def with_metainfo(metainfo):
    dataset = dict(type='Repeat', dataset=dict(type='A', metainfo=metainfo))
    return Config(dict(train_dataloader=dict(dataset=dataset)))


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
def test_a_slip_in_metainfo_is_one_sentence_that_names_the_entry(metainfo, words):
    with pytest.raises(InputError, match=f'^train_dataloader.dataset.dataset.metainfo: .*({words})'):
        check_config(with_metainfo(metainfo))


def test_metainfo_that_is_right(tmp_path):
    for metainfo in (GOOD, edited(0, swap='nose'), edited(sigmas=[])):
        check_config(with_metainfo(metainfo))
    check_config(with_metainfo(dict(from_file='configs/_base_/datasets/coco.py')))
    file = tmp_path / 'own.py'
    file.write_text(f'dataset_info = {edited(2, swap="")!r}')
    with pytest.raises(InputError, match=str(file)):
        check_config(with_metainfo(dict(from_file=str(file))))
