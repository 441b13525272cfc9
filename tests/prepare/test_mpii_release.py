import json
import os

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.io.matlab import _mio5

from hg_plugin.datasets import MPIIPoseDataset
from hg_plugin.prepare.mpii_release import ZEROS_OF_TRUTH, prepare_mpii, read_release, read_val_split
from hg_plugin.utils.errors import InputError

TOOL = 'hg_plugin/__main__.py', 'prepare', 'mpii'
EMPTY = np.empty((0, 0))


def structs(records):
    """A struct array (1, N) with all fields of the dictionaries, empty where one lacks them."""
    names = list(dict.fromkeys(name for record in records for name in record))
    array = np.empty((1, len(records)), [(name, object) for name in names])
    for index, record in enumerate(records):
        array[0, index] = tuple(record.get(name, EMPTY) for name in names)
    return array


def rectangle(center, scale, joints=None, visible=(1,) * 16, box=None):
    """A person as ``annorect`` has it."""
    x, y = map(float, center)
    rect = dict(scale=float(scale), objpos=dict(x=x, y=y))
    if joints is not None:
        points = [
            dict(x=float(x), y=float(y), id=np.uint8(joint), is_visible=(1.0, '0', EMPTY)[joint % 3])
            for joint, (x, y) in enumerate(joints)
            if visible[joint]
        ]
        rect['annopoints'] = dict(point=structs(points))
    if box is not None:
        rect.update(zip(('x1', 'y1', 'x2', 'y2'), map(float, np.ravel(box))))
    return rect


def save_release(path, images, **changes):
    """Writes images, dict(image, train, rects, single), as MPII's release; changes replaces its fields."""
    records, single = [], np.empty((len(images), 1), object)
    for index, image in enumerate(images):
        rects = structs(image['rects']) if image['rects'] else EMPTY
        records.append(dict(image=dict(name=image['image']), annorect=rects))
        single[index, 0] = np.array(image['single'], np.uint8)[:, None] + 1 if image.get('single') else EMPTY
    img_train = np.array([[image['train'] for image in images]], np.uint8)
    release = dict(
        annolist=structs(records), img_train=img_train, version='12', single_person=single, act=EMPTY
    )
    with pytest.MonkeyPatch.context() as patch:
        # MATLAB keeps small whole doubles in bytes
        patch.setitem(_mio5.NP_TO_MXTYPES, 'u1', _mio5.mxDOUBLE_CLASS)
        savemat(path, dict(RELEASE={**release, **changes}), do_compression=True)
    return path


def images_of_the_test_set(random):
    """Sixty test persons in the ways that the release has them; 25 are separate and can be cropped."""
    images = []
    for index in range(10):
        rects = [rectangle(random.randint(1, 999, 2), random.uniform(1, 9)) for _ in range(6)]
        rects[3].pop('objpos')
        rects[4].pop('scale')
        single = (1, 3, 4) if index % 2 else (0, 1, 2, 5)
        images.append(dict(image=f'9{index:08d}.jpg', train=0, rects=rects, single=single))
    images.append(dict(image='910000000.jpg', train=0, rects=[], single=()))
    rects = [dict(x1=np.uint8(1)), dict(x1=np.uint8(2))]
    images.append(dict(image='910000001.jpg', train=0, rects=rects, single=(0,)))
    return images


@pytest.fixture(scope='module', params=[50, pytest.param(1, marks=pytest.mark.slow)], ids=['part', 'all'])
def standard(request, real_data):
    """The annotations that everyone uses: train, val, and the arrays of mpii_gt_val.mat; of some images."""
    folder = real_data('mpii_annotations')
    train, val = (json.loads((folder / f'mpii_{split}.json').read_text()) for split in ('train', 'val'))
    assert (len(train), len(val)) == (22_246, 2_958)
    zeros = {val[row]['image'] for row, _, _ in ZEROS_OF_TRUTH}
    images = {person['image'] for person in (train + val)[:: request.param]} | zeros
    rows = [row for row, person in enumerate(val) if person['image'] in images]
    truth = loadmat(folder / 'mpii_gt_val.mat')
    for name in ('headboxes_src', 'pos_gt_src', 'jnt_missing'):
        truth[name] = truth[name][..., rows]
    train = [person for person in train if person['image'] in images]
    return dict(train=train, val=[val[row] for row in rows], truth=truth)


@pytest.fixture(scope='module')
def release(standard, tmp_path_factory):
    """A release file with the persons of the standard and much that must not become one; and its images."""
    random = np.random.RandomState(0)
    images = {}
    for split in ('train', 'val'):
        for row, person in enumerate(standard[split]):
            joints, box = np.array(person['joints']), None
            if split == 'val':
                box = standard['truth']['headboxes_src'][..., row]
                exact = standard['truth']['pos_gt_src'][..., row]  # more decimals, but for 13 joints
                joints = np.where(np.abs(exact - joints) < 1e-3, exact, joints)
            scale = person['scale'] + random.uniform(-4e-4, 4e-4)  # more decimals, too
            empty = dict(image=person['image'], train=1, rects=[], single=())
            rect = rectangle(person['center'], scale, joints, person['joints_vis'], box)
            images.setdefault(person['image'], empty)['rects'].append(rect)
    train = [images[image] for image in dict.fromkeys(person['image'] for person in standard['train'])]
    others = [images[image] for image in dict.fromkeys(person['image'] for person in standard['val'])]

    def stranger():
        joints = random.randint(1, 999, (16, 2))
        return rectangle(random.randint(1, 999, 2), 1.5, joints, box=[[1, 2], [3, 4]])

    for image in train[::100]:
        incomplete = [stranger() for _ in range(5)]
        incomplete[0].pop('annopoints')
        incomplete[1].pop('scale')
        incomplete[2].pop('objpos')
        incomplete[3]['annopoints'] = dict(point=EMPTY)
        incomplete[4]['annopoints'] = dict(point=structs([dict(x=1.0, y=EMPTY, id=3.0)]))
        for rect in incomplete:
            image['rects'].insert(random.randint(len(image['rects']) + 1), rect)
    for image in others[::10]:  # they share an image with a validation person
        image['rects'].insert(0, stranger())
    for image in others:
        random.shuffle(image['rects'])
    others += images_of_the_test_set(random)
    others.append(dict(image='800000000.jpg', train=1, rects=[], single=()))
    random.shuffle(others)
    for place, image in zip(sorted(random.randint(0, len(train), len(others)), reverse=True), others):
        train.insert(place, image)
    return save_release(tmp_path_factory.mktemp('release') / 'release.mat', train), train


@pytest.fixture(scope='module')
def prepared(release, standard, tmp_path_factory):
    out = tmp_path_factory.mktemp('mpii')
    return out, prepare_mpii(release[0], out, allow_partial=len(standard['train']) < 22_246)


def assert_same_persons(path, expected):
    annotations = json.loads(path.read_text())
    for key in ('image', 'joints_vis', 'center'):
        assert [annotation[key] for annotation in annotations] == [person[key] for person in expected]
    for key in ('scale', 'joints'):
        difference = np.array([a[key] for a in annotations]) - np.array([person[key] for person in expected])
        assert np.abs(difference).max() < 1.01e-3
    assert [list(annotation) for annotation in annotations] == [list(person) for person in expected]


def test_the_release_gives_the_standard_annotations_in_their_order(prepared, standard):
    out, persons = prepared
    assert_same_persons(out / 'annotations/mpii_train.json', standard['train'])
    assert_same_persons(out / 'annotations/mpii_val.json', standard['val'])
    num_images = len({person['image'] for person in standard['val']})
    assert len(persons['left_out']) == -(-num_images // 10)
    truth, expected = loadmat(out / 'annotations/mpii_gt_val.mat'), standard['truth']
    for name in ('headboxes_src', 'pos_gt_src', 'jnt_missing'):
        assert truth[name].dtype == expected[name].dtype and truth[name].shape == expected[name].shape
        assert np.abs(truth[name] - expected[name].astype(float)).max() < 1e-5
    assert truth['dataset_joints'].tolist() == expected['dataset_joints'].tolist()
    files = dict(ann_file='annotations/mpii_val.json', headbox_file='annotations/mpii_gt_val.mat')
    assert len(MPIIPoseDataset(**files, data_root=str(out), test_mode=True)) == len(standard['val'])


def test_the_test_set_has_the_separate_persons_without_joints(prepared, release):
    out, persons = prepared
    annotations = json.loads((out / 'annotations/mpii_test.json').read_text())
    assert len(annotations) == len(persons['test']) == 25
    _, images = release
    for annotation in annotations:
        image = images[annotation['image_index']]
        rect = image['rects'][annotation['person_index']]
        assert image['image'] == annotation['image'] and annotation['person_index'] in image['single']
        assert [*rect['objpos'].values()] == annotation['center']
        assert abs(rect['scale'] - annotation['scale']) < 1e-3
        assert annotation['joints'] == [[-1, -1]] * 16 and annotation['joints_vis'] == [0] * 16
    rows = [(annotation['image_index'], annotation['person_index']) for annotation in annotations]
    assert rows == sorted(set(rows))
    template = loadmat(out / 'annotations/mpii_test_annolist.mat', mat_dtype=True)['annolist']
    assert template.shape == (1, 12)
    rects = {image['image'][0, 0]['name'].item(): image['annorect'] for image in template[0]}
    assert rects.keys() > {annotation['image'] for annotation in annotations}
    assert rects['900000000.jpg'].shape == (1, 6) and rects['910000000.jpg'].size == 0
    x1 = rects['910000001.jpg']['x1'][0, 1]
    assert x1 == [[2]] and x1.dtype == np.float64


def test_the_split_in_the_package_is_the_standard_one(real_data):
    val = json.loads((real_data('mpii_annotations') / 'mpii_val.json').read_text())
    assert read_val_split() == [{key: person[key] for key in ('image', 'center', 'scale')} for person in val]


@pytest.fixture
def few():
    """A few images: two validation persons beside another one, a training person, and the test set."""
    first, second = read_val_split()[:2]
    random = np.random.RandomState(1)

    def person(person, box, larger=0):
        joints = random.uniform(-20, 999, (16, 2))
        return rectangle(person['center'], person['scale'] + larger, joints, box=box)

    alone = rectangle((5, 6), 1.25, random.uniform(-20, 999, (1, 2)), box=[[1, 2], [3, 4]])
    beside = [person(second, [[5, 5], [9, 9]], larger=1), person(second, [[10, 20], [40, 60]])]
    return [
        dict(image='000000001.jpg', train=1, rects=[alone]),
        dict(image=second['image'], train=1, rects=beside),
        dict(image=first['image'], train=1, rects=[person(first, [[1, 1], [8, 9]])]),
        *images_of_the_test_set(random),
    ]


def test_a_person_is_told_from_another_at_the_same_place_by_the_scale(few, tmp_path):
    persons = prepare_mpii(save_release(tmp_path / 'few.mat', few), tmp_path, allow_partial=True)
    assert [person['person_index'] for person in persons['val']] == [0, 1]
    assert [person['person_index'] for person in persons['left_out']] == [0]
    boxes = loadmat(tmp_path / 'annotations/mpii_gt_val.mat')['headboxes_src']
    assert boxes[..., 1].tolist() == [[10, 20], [40, 60]]
    alone = read_release(tmp_path / 'few.mat')[0][0]  # with a single point
    assert np.isfinite(alone['joints'][0]).all() and np.isnan(alone['joints'][1:]).all()


def test_a_part_of_the_release_is_refused_unless_allowed(few, tmp_path):
    path = save_release(tmp_path / 'few.mat', few)
    with pytest.raises(InputError, match='1 of 22,246 training and 2 of 2,958 .*partial'):
        prepare_mpii(path, tmp_path / 'out')
    prepare_mpii(save_release(path, few[:1]), tmp_path / 'train', allow_partial=True)
    assert os.listdir(tmp_path / 'train/annotations') == ['mpii_train.json']
    assert not (tmp_path / 'out').exists()


def test_files_that_are_no_release(few, tmp_path):
    path = tmp_path / 'release.mat'
    content = save_release(path, few).read_bytes()
    for make, message in (
        (path.unlink, 'does not exist'),
        (lambda: path.write_bytes(content[:-1]), 'cannot be read'),
        (lambda: path.write_bytes(b'MATLAB 7.3 MAT-file'.ljust(124) + b'\x00\x02IM'.ljust(2000)), 'v7.3'),
        (lambda: savemat(path, dict(preds=np.zeros(3))), 'get mpii_human_pose_v1_u12_1.mat'),
        (lambda: save_release(path, few, annolist=np.ones((1, len(few)))), 'cannot be read'),
        (lambda: save_release(path, few, img_train=np.ones((1, 3), np.uint8)), 'zip'),
    ):
        make()
        with pytest.raises(InputError, match=message) as error:
            prepare_mpii(path, tmp_path / 'out', allow_partial=True)
        assert str(path) in str(error.value) and not (tmp_path / 'out').exists()


def test_the_command_writes_annotations(few, tool, tmp_path):
    arguments = '--mat', save_release(tmp_path / 'few.mat', few[:3]), '--out', tmp_path / 'mpii'
    assert 'partial' in tool(*TOOL, *arguments)[0] and not (tmp_path / 'mpii').exists()
    code, printed = tool(*TOOL, *arguments, '--allow-partial')
    assert code == 0 and 'val:      2 persons in      2 images' in printed
    assert len(os.listdir(tmp_path / 'mpii/annotations')) == 3
