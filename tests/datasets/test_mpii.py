import json
import shutil

import numpy as np
import pytest
from scipy.io import loadmat

from hg_plugin.datasets import MPIIPoseDataset
from hg_plugin.prepare.metainfo import metainfo_of
from hg_plugin.utils.errors import InputError

PIPELINE = [
    dict(type='LoadImage'),
    dict(type='GetBBoxCenterScale'),
    dict(type='TopdownAffine', input_size=(256, 256)),
    dict(type='PackPoseInputs', pack_transformed=True),
]


@pytest.fixture
def persons(sample_set, edit):
    """``with persons() as entries`` changes its annotations."""
    return lambda: edit(sample_set / 'annotations/mpii_val.json')


def load(root, **kwargs):
    return MPIIPoseDataset(
        'annotations/mpii_val.json',
        headbox_file='annotations/mpii_gt_val.mat',
        data_root=str(root),
        **dict(dict(data_prefix=dict(img='images/'), pipeline=PIPELINE, test_mode=True), **kwargs),
    )


@pytest.fixture(scope='module')
def val(real_data):
    """MPII's validation persons."""
    files = dict(ann_file='mpii_val.json', headbox_file='mpii_gt_val.mat')
    return MPIIPoseDataset(**files, data_root=str(real_data('mpii_annotations')), test_mode=True)


def test_all_real_persons_load_in_the_order_of_the_file(real_data, val):
    folder = real_data('mpii_annotations')
    train = MPIIPoseDataset('mpii_train.json', data_root=str(folder))
    assert (len(train), len(val)) == (22_246, 2_958)
    annotations = json.loads((folder / 'mpii_train.json').read_text())
    for index in (0, 11_000, 22_245):
        item, annotation = train.get_data_info(index), annotations[index]
        assert item['id'] == index and item['img_path'].endswith(annotation['image'])
        assert np.allclose(item['keypoints'][0], np.array(annotation['joints']) - 1)
        assert np.array_equal(item['keypoints_visible'][0], annotation['joints_vis'])
    assert 'head_size' not in train.get_data_info(0)


def test_everything_is_0_based_and_the_crop_is_the_papers(val):
    item = val.get_data_info(0)
    # annotation 0: center (966, 340), scale 4.718; head box (914, 79) to (1031, 237); right ankle (804, 711)
    assert np.allclose(item['keypoints'][0, 0], (803, 710), atol=1e-3)
    x1, y1, x2, y2 = item['bbox'][0]
    assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx((965, 339 + 15 * 4.718), abs=1e-3)
    assert (x2 - x1, y2 - y1) == pytest.approx((943.6, 943.6), abs=1e-3)
    assert item['head_size'].shape == (1, 1)
    assert item['head_size'].item() == pytest.approx(0.6 * np.hypot(117, 158), abs=1e-3)


def test_validation_joints_are_those_of_published_results(real_data, val):
    truth = loadmat(real_data('mpii_annotations') / 'mpii_gt_val.mat')
    keypoints, visible = (
        np.concatenate([val.get_data_info(index)[key] for index in range(len(val))])
        for key in ('keypoints', 'keypoints_visible')
    )
    assert np.allclose(keypoints, truth['pos_gt_src'].transpose(2, 0, 1) - 1, atol=1e-3)
    assert np.array_equal(visible, 1 - truth['jnt_missing'].T)


def test_a_real_person_comes_out_as_the_papers_crop(sample_set):
    sample = load(sample_set)[0]
    assert sample['inputs'].shape == (3, 256, 256)
    data = sample['data_samples']
    assert data.gt_instances.bbox_scales == pytest.approx(np.full((1, 2), 200 * 4.718 * 1.25), abs=1e-2)
    crop = data.gt_instances.transformed_keypoints[0]
    expected = (data.gt_instances.keypoints[0] - data.input_center) / data.input_scale * 256 + 128
    assert np.allclose(crop, expected, atol=1e-2) and (crop > 0).all() and (crop < 256).all()


def test_a_transform_that_writes_into_its_flip_indices_harms_no_other_person(sample_set):
    mean_of_two = [*((joint, joint) for joint in range(9)), ((8, 9), 9), *((k, k) for k in range(10, 16))]
    pipeline = [dict(type='KeypointConverter', num_keypoints=16, mapping=mean_of_two)]
    dataset = load(sample_set, pipeline=pipeline)
    indices = [list(dataset[index]['flip_indices']) for index in range(3)]
    assert indices[0] == indices[1] == indices[2]
    assert sorted(dataset.metainfo['flip_indices']) == list(range(16))


def test_keypoints_that_no_person_has_are_known(sample_set, persons):
    assert load(sample_set).metainfo['unannotated_keypoints'] == []
    with persons() as entries:
        for entry in entries:
            entry['joints_vis'][6] = 0
    assert load(sample_set).metainfo['unannotated_keypoints'] == ['pelvis']


def test_no_warning_that_a_user_can_do_nothing_about(sample_set, recwarn):
    load(sample_set)[0]
    assert not [str(w.message) for w in recwarn if 'metainfo' in str(w.message) or 'bbox' in str(w.message)]


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda rows: rows[4].update(joints_vis=[1] * 17), r'annotation 4: joints_vis .*\(16,\).* \(17,\)'),
        (lambda rows: rows[1].update(scale=0), 'annotation 1: scale 0 makes the person smaller'),
        (lambda rows: rows[3].update(joints_vis=[-1] * 16), 'annotation 3: has no annotated joint'),
        (lambda rows: rows.pop(), 'mpii_gt_val.mat holds 5 persons .*mpii_val.json has 4'),
        (lambda rows: rows.insert(1, rows.pop(3)), 'other joints for 3 of 5 .* annotation 1'),
    ],
)
def test_wrong_annotations_name_the_file_and_the_index(sample_set, persons, change, message):
    with persons() as entries:
        change(entries)
    with pytest.raises(InputError, match=message) as error:
        load(sample_set)
    assert 'mpii_val.json' in str(error.value)


def test_files_that_are_missing_or_cut_off(sample_set):
    annotations = sample_set / 'annotations/mpii_val.json'
    shutil.move(sample_set / 'images', sample_set / 'elsewhere')
    with pytest.raises(InputError, match='image folder .*images/ of .*mpii_val.json does not exist'):
        load(sample_set)
    (sample_set / 'images').mkdir()
    unreadable = r'mpii_val.json, annotation 3: .*\.jpg cannot be read: No such file'
    with pytest.raises(InputError, match=unreadable):
        load(sample_set)[3]
    annotations.write_text(annotations.read_text()[:500])
    with pytest.raises(InputError, match='mpii_val.json cannot be read .JSONDecodeError'):
        load(sample_set)
    annotations.unlink()
    with pytest.raises(InputError, match='mpii_val.json does not exist'):
        load(sample_set)


@pytest.mark.parametrize('joints', [[9], [0, 5, 10, 15], [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15, 8, 9]])
def test_the_joints_are_those_of_the_metainfo(sample_set, keep_joints, joints):
    expected = [load(sample_set).get_data_info(index) for index in range(5)]
    keep_joints(joints)
    swaps = dict(joint_0='joint_5', joint_5='joint_0') if 0 in joints else {}
    meta = metainfo_of('own', [f'joint_{j}' for j in joints], partners=swaps)
    data = load(sample_set, metainfo=meta)
    for a, b in zip(expected, [data.get_data_info(index) for index in range(5)]):
        assert np.array_equal(a['keypoints'][:, joints], b['keypoints'])
        assert np.array_equal(a['keypoints_visible'][:, joints], b['keypoints_visible'])
        assert a['head_size'] == b['head_size'] and np.array_equal(a['bbox'], b['bbox'])
    assert data.metainfo['num_keypoints'] == len(joints) and data[0]['inputs'].shape == (3, 256, 256)
    with pytest.raises(InputError, match=r'annotation 0: joints should have shape \(16, 2\), but is'):
        load(sample_set)
    with pytest.raises(InputError, match=r'joints should have shape'):
        load(sample_set, metainfo=metainfo_of('own', ['a', 'b']))


def test_a_detectors_boxes_take_the_place_of_the_annotated_ones(sample_set, tmp_path):
    expected = [load(sample_set).get_data_info(index) for index in range(5)]
    detections = []
    for item in expected:
        left, top, right, bottom = item['bbox'][0].tolist()
        box, image = [left + 9, top + 5, right - left, bottom - top], item['img_path'].rpartition('/')[2]
        detections.append(dict(image_id=image, bbox=box, score=0.5, category_id=1))
    (tmp_path / 'boxes.json').write_text(json.dumps(detections))
    data = load(sample_set, bbox_file=str(tmp_path / 'boxes.json'))
    for a, b in zip(expected, [data.get_data_info(index) for index in range(5)]):
        assert np.allclose(b['bbox'] - a['bbox'], [[9, 5, 9, 5]], atol=1e-3) and b['bbox_score'] == 0.5
        assert np.array_equal(a['keypoints'], b['keypoints']) and a['head_size'] == b['head_size']
    with pytest.raises(ValueError, match='bbox_file.*only'):
        load(sample_set, bbox_file=str(tmp_path / 'boxes.json'), test_mode=False)


@pytest.mark.parametrize('setting', [dict(data_mode='bottomup'), dict(sample_interval=2)])
def test_settings_of_mmposes_datasets_that_have_no_meaning_here_are_refused(sample_set, setting):
    with pytest.raises(InputError, match="only 'topdown' and 1; set indices"):
        load(sample_set, **setting)
    load(sample_set, data_mode='topdown', sample_interval=1)
