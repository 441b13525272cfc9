import contextlib
import functools
import io
import itertools
import json
import os
import struct
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.io.matlab import _mio5

from hg_plugin.datasets import MPIIPoseDataset
from hg_plugin.prepare.mpii_release import check_images, prepare_mpii, read_release, read_val_split
from hg_plugin.utils.errors import InputError
from hg_plugin_cli import main

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get('HG_DATA', ROOT / '../shared/data'))
EMPTY = np.empty((0, 0))


class Numbers:
    """A struct array (1, N) of scalars, from (N, fields); alone or as the only field of another struct."""

    def __init__(self, names, rows, field=None):
        self.names, self.rows, self.field = names, np.array(rows, np.float64), field


def written(value):
    """The bytes that savemat writes for a value in a struct."""
    file = io.BytesIO()
    savemat(file, dict(s=dict(inner=value)))
    content = file.getvalue()
    return content[
        content.index(struct.pack('<I', 14), 136) :
    ]  # 128 bytes of header and the tag of s come first


@functools.lru_cache(None)
def written_zeros(names, count, field):
    zeros = structs([dict.fromkeys(names, np.zeros((1, 1)))] * count)
    return np.frombuffer(written({field: zeros} if field else zeros), np.uint8)


@contextlib.contextmanager
def quick_savemat():
    """Lets savemat write Numbers, and without the 50 microseconds that it needs for each of a million
    scalars.

    Whole numbers up to 255 are doubles that are stored in a byte, as MATLAB does.
    """
    stock = _mio5.VarWriter5.write
    scalar, empty = written(0.0)[:-8], written(EMPTY)
    small = scalar[:4] + struct.pack('<I', 48) + scalar[8:48]

    def write(self, array):
        if type(array) is float and array in range(256):
            self.file_stream.write(small + struct.pack('<HHB3x', 2, 1, int(array)))
        elif type(array) is float:
            self.file_stream.write(scalar + struct.pack('<d', array))
        elif array is EMPTY:
            self.file_stream.write(empty)
        elif isinstance(array, Numbers):
            content = written_zeros(array.names, len(array.rows), array.field).copy()
            scalars = content[-array.rows.size * 64 :].reshape(-1, 64)  # each ends in its value
            scalars[:, 56:] = array.rows.reshape(-1, 1).view(np.uint8)
            self.file_stream.write(content.tobytes())
        else:
            stock(self, array)

    _mio5.VarWriter5.write = write
    try:
        yield
    finally:
        _mio5.VarWriter5.write = stock


def structs(records):
    """A struct array (1, N) with all fields of the dictionaries, empty where one lacks them."""
    names = list(dict.fromkeys(name for record in records for name in record))
    array = np.empty((1, len(records)), [(name, object) for name in names])
    for index, record in enumerate(records):
        array[0, index] = tuple(record.get(name, EMPTY) for name in names)
    return array


def rectangle(center, scale, joints=None, visible=(1,) * 16, box=None, flags=None):
    """A person as ``annorect`` has it; ``flags`` gives each point its is_visible."""
    rect = dict(scale=float(scale), objpos=Numbers(('x', 'y'), [center]))
    if joints is not None:
        points = [(x, y, joint) for joint, (x, y) in enumerate(joints) if visible[joint]]
        rect['annopoints'] = (
            Numbers(('x', 'y', 'id'), points, 'point')
            if flags is None
            else dict(
                point=structs(
                    [
                        dict(x=float(x), y=float(y), id=float(joint), is_visible=flag)
                        for (x, y, joint), flag in zip(points, itertools.cycle(flags))
                    ]
                )
            )
        )
    if box is not None:
        rect.update(zip(('x1', 'y1', 'x2', 'y2'), map(float, np.ravel(box))))
    return rect


def save_release(path, images, **changes):
    """Writes images, dict(image, train, rects, single), as MPII's release; changes replaces its fields."""
    annolist = structs(
        [
            dict(
                image=dict(name=image['image']),
                annorect=structs(image['rects']) if image['rects'] else EMPTY,
            )
            for image in images
        ]
    )
    single = np.empty((len(images), 1), object)
    for index, image in enumerate(images):
        single[index, 0] = np.array(image['single'], np.uint8)[:, None] + 1 if image.get('single') else EMPTY
    img_train = np.array([[image['train'] for image in images]], np.uint8)
    release = dict(annolist=annolist, img_train=img_train, version='12', single_person=single, act=EMPTY)
    with quick_savemat():
        savemat(path, dict(RELEASE={**release, **changes}), do_compression=True)
    return path


def images_of_the_test_set(random):
    """Six hundred test persons in the ways that the release has them; 250 are separate and can be cropped."""
    images = []
    for index in range(100):
        rects = [rectangle(random.randint(1, 999, 2), random.uniform(1, 9)) for _ in range(6)]
        rects[3].pop('objpos')
        rects[4].pop('scale')
        single = (1, 3, 4) if index % 2 else (0, 1, 2, 5)
        images.append(dict(image=f'9{index:08d}.jpg', train=0, rects=rects, single=single))
    images.append(dict(image='910000000.jpg', train=0, rects=[], single=()))
    images.append(dict(image='910000001.jpg', train=0, rects=[dict(x1=1.0), dict(x1=2.0)], single=(0,)))
    return images


@pytest.fixture(scope='module')
def standard():
    """The annotations that everyone uses: train, val, and the arrays of mpii_gt_val.mat."""
    folder = DATA / 'mpii_annotations'
    if not folder.is_dir():
        pytest.skip(f'mpii_annotations is not in {DATA}; set HG_DATA to where it is')
    train, val = (json.loads((folder / f'mpii_{split}.json').read_text()) for split in ('train', 'val'))
    return dict(train=train, val=val, truth=loadmat(folder / 'mpii_gt_val.mat'))


@pytest.fixture(scope='module')
def release(standard, tmp_path_factory):
    """A release file with all persons of the standard and much that must not become one; and its images."""
    random = np.random.RandomState(0)
    flags = [(1.0, 0.0), ('1', '0'), (EMPTY, 1.0), ('', '0')]
    images = {}
    for split in ('train', 'val'):
        for row, person in enumerate(standard[split]):
            joints, box = np.array(person['joints']), None
            if split == 'val':
                box = standard['truth']['headboxes_src'][..., row]
                exact = standard['truth']['pos_gt_src'][..., row]  # more decimals, but for 13 joints
                joints = np.where(np.abs(exact - joints) < 1e-3, exact, joints)
            scale = person['scale'] + random.uniform(-4e-4, 4e-4)  # more decimals, too
            rect = rectangle(
                person['center'],
                scale,
                joints,
                person['joints_vis'],
                box,
                flags[row % 4] if row % 50 < 4 else None,
            )
            image = images.setdefault(
                person['image'], dict(image=person['image'], train=1, rects=[], single=())
            )
            image['rects'].append(rect)
    train = [images[image] for image in dict.fromkeys(person['image'] for person in standard['train'])]
    others = [images[image] for image in dict.fromkeys(person['image'] for person in standard['val'])]

    def stranger():
        return rectangle(
            random.randint(1, 999, 2), 1.5, random.randint(1, 999, (16, 2)), box=[[1, 2], [3, 4]]
        )

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
def prepared(release, tmp_path_factory):
    out = tmp_path_factory.mktemp('mpii')
    return out, prepare_mpii(release[0], out)


def assert_same_persons(path, expected):
    annotations = json.loads(path.read_text())
    for key in ('image', 'joints_vis', 'center'):
        assert [annotation[key] for annotation in annotations] == [person[key] for person in expected]
    for key in ('scale', 'joints'):
        difference = np.array([a[key] for a in annotations]) - np.array([person[key] for person in expected])
        assert np.abs(difference).max() < 1.01e-3
    assert [list(annotation) for annotation in annotations] == [list(person) for person in expected]


def test_the_whole_release_gives_the_standard_annotations_in_their_order(prepared, standard):
    out, persons = prepared
    assert (len(standard['train']), len(standard['val'])) == (22_246, 2_958)
    assert_same_persons(out / 'annotations/mpii_train.json', standard['train'])
    assert_same_persons(out / 'annotations/mpii_val.json', standard['val'])
    assert len(persons['left_out']) == 273  # a tenth of 2,729 images
    truth = loadmat(out / 'annotations/mpii_gt_val.mat')
    for name in ('headboxes_src', 'pos_gt_src', 'jnt_missing'):
        assert (
            truth[name].dtype == standard['truth'][name].dtype
            and truth[name].shape == standard['truth'][name].shape
        )
        assert np.abs(truth[name] - standard['truth'][name].astype(float)).max() < 1e-5
    assert truth['dataset_joints'].tolist() == standard['truth']['dataset_joints'].tolist()


def test_the_data_set_takes_what_was_made(prepared):
    out, _ = prepared
    data = MPIIPoseDataset(
        'annotations/mpii_val.json',
        headbox_file='annotations/mpii_gt_val.mat',
        data_root=str(out),
        test_mode=True,
    )
    assert len(data) == 2_958


def test_the_test_set_has_the_separate_persons_without_joints(prepared, release):
    out, persons = prepared
    annotations = json.loads((out / 'annotations/mpii_test.json').read_text())
    assert len(annotations) == len(persons['test']) == 250
    assert len(persons['unplaced']) == 2 * 50 + 1  # no position, or no scale, or neither
    _, images = release
    for annotation in annotations:
        image = images[annotation['image_index']]
        rect = image['rects'][annotation['person_index']]
        assert image['image'] == annotation['image'] and annotation['person_index'] in image['single']
        assert rect['objpos'].rows.tolist() == [annotation['center']]
        assert abs(rect['scale'] - annotation['scale']) < 1e-3
        assert annotation['joints'] == [[-1, -1]] * 16 and annotation['joints_vis'] == [0] * 16
    rows = [(annotation['image_index'], annotation['person_index']) for annotation in annotations]
    assert rows == sorted(set(rows))
    template = loadmat(out / 'annotations/mpii_test_annolist.mat', mat_dtype=True)['annolist']
    assert template.shape == (1, 102)
    assert {image['image'][0, 0]['name'].item() for image in template[0]} > {a['image'] for a in annotations}
    rects = {image['image'][0, 0]['name'].item(): image['annorect'] for image in template[0]}
    assert rects['900000000.jpg'].shape == (1, 6) and rects['910000000.jpg'].size == 0
    assert (
        rects['910000001.jpg']['x1'][0, 1] == [[2]] and rects['910000001.jpg']['x1'][0, 1].dtype == np.float64
    )


def test_the_split_in_the_package_is_the_standard_one(standard):
    keys = ('image', 'center', 'scale')
    assert read_val_split() == [{key: person[key] for key in keys} for person in standard['val']]


@pytest.fixture
def few():
    """A few images: two validation persons beside another one, a training person, and the test set."""
    first, second = read_val_split()[:2]
    random = np.random.RandomState(1)

    def joints():
        return random.uniform(-20, 999, (16, 2))

    return [
        dict(
            image='000000001.jpg',
            train=1,
            rects=[rectangle((5, 6), 1.25, joints()[:1], box=[[1, 2], [3, 4]], flags=[EMPTY])],
        ),
        dict(
            image=second['image'],
            train=1,
            rects=[
                rectangle(second['center'], second['scale'] + 1, joints(), box=[[5, 5], [9, 9]]),
                rectangle(second['center'], second['scale'], joints(), box=[[10, 20], [40, 60]]),
            ],
        ),
        dict(
            image=first['image'],
            train=1,
            rects=[rectangle(first['center'], first['scale'], joints(), box=[[1, 1], [8, 9]])],
        ),
        *images_of_the_test_set(random),
    ]


def test_a_person_is_told_from_another_at_the_same_place_by_the_scale(few, tmp_path):
    persons = prepare_mpii(save_release(tmp_path / 'few.mat', few), tmp_path, allow_partial=True)
    assert [person['person_index'] for person in persons['val']] == [0, 1]
    assert [person['person_index'] for person in persons['left_out']] == [0]
    boxes = loadmat(tmp_path / 'annotations/mpii_gt_val.mat')['headboxes_src']
    assert boxes[..., 1].tolist() == [[10, 20], [40, 60]]


def test_a_point_alone_is_a_person(few, tmp_path):
    read = read_release(save_release(tmp_path / 'few.mat', few))['images'][0]
    assert read['image'] == '000000001.jpg' and read['train'] and read['single'] == []
    (person,) = read['persons']
    assert np.isfinite(person['joints'][0]).all() and np.isnan(person['joints'][1:]).all()


def test_a_part_of_the_release_is_refused_unless_allowed(few, tmp_path):
    path = save_release(tmp_path / 'few.mat', few)
    with pytest.raises(InputError, match='few.mat has 1 of 22,246 training and 2 of 2,958 .*allow a partial'):
        prepare_mpii(path, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    prepare_mpii(path, tmp_path / 'out', allow_partial=True)
    names = [
        'mpii_gt_val.mat',
        'mpii_test.json',
        'mpii_test_annolist.mat',
        'mpii_train.json',
        'mpii_val.json',
    ]
    assert sorted(os.listdir(tmp_path / 'out/annotations')) == names
    prepare_mpii(save_release(path, few[:1]), tmp_path / 'train', allow_partial=True)
    assert os.listdir(tmp_path / 'train/annotations') == ['mpii_train.json']
    for left in ([], few[-1:]):
        save_release(path, left or [dict(few[0], rects=[])])
        with pytest.raises(InputError, match='few.mat has no person of the'):
            prepare_mpii(path, tmp_path / 'none', allow_partial=True)
    assert not (tmp_path / 'none').exists()


def test_files_that_are_no_release(few, tmp_path):
    path = tmp_path / 'release.mat'

    def refuse(message):
        with pytest.raises(InputError, match=message) as error:
            prepare_mpii(path, tmp_path / 'out', allow_partial=True)
        assert str(path) in str(error.value) and '\n' not in str(error.value)
        assert not (tmp_path / 'out').exists()

    refuse('does not exist')
    content = save_release(path, few).read_bytes()
    for length in (0, 50, 128, 140, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        refuse('cannot be read')
    path.write_text('<html>404 not found</html>' * 100)
    refuse('cannot be read')
    path.write_bytes(b'MATLAB 7.3 MAT-file'.ljust(124) + b'\x00\x02IM' + b'\x89HDF\r\n\x1a\n'.ljust(2000))
    refuse('cannot be read .NotImplementedError.* v7.3')
    for other in (
        dict(preds=np.zeros(3)),
        dict(RELEASE=np.zeros(3)),
        dict(RELEASE=dict(annolist=np.zeros(3))),
    ):
        savemat(path, other)
        refuse("cannot be read .* get mpii_human_pose_v1_u12_1.mat from MPII's site")
    save_release(path, few, annolist=np.ones((1, len(few))))
    refuse('cannot be read')
    save_release(path, few, img_train=np.ones((1, 3), np.uint8))
    refuse('annolist, img_train and single_person have different lengths')
    save_release(path, few, annolist=structs([dict(image=EMPTY, annorect=EMPTY)] * len(few)))
    refuse('cannot be read')


def test_a_folder_that_cannot_be_written(few, tmp_path):
    (tmp_path / 'out').write_text('a file')
    with pytest.raises(InputError, match='cannot be written'):
        prepare_mpii(save_release(tmp_path / 'few.mat', few), tmp_path / 'out', allow_partial=True)
    assert (tmp_path / 'out').read_text() == 'a file'


@pytest.fixture
def images(tmp_path):
    """A folder with one good image and four others, by what is wrong with them."""
    folder = tmp_path / 'images'
    folder.mkdir()
    _, jpeg = cv2.imencode('.jpg', np.random.RandomState(0).randint(0, 255, (64, 64, 3), np.uint8))
    (folder / 'good.jpg').write_bytes(jpeg.tobytes())
    (folder / 'cut.jpg').write_bytes(jpeg.tobytes()[:-2])
    (folder / 'empty.jpg').write_bytes(b'')
    (folder / 'text.jpg').write_text('404 not found')
    return folder


def test_images_that_are_missing_or_broken_are_named(images, capfd):
    names = ['cut.jpg', 'good.jpg', 'text.jpg', 'none.jpg', 'empty.jpg']
    for num_workers in (1, 2):
        defects = check_images(images, names, num_workers=num_workers)
        assert list(defects) == ['cut.jpg', 'text.jpg', 'none.jpg', 'empty.jpg']
        assert all(f'images/{name} ' in defects[name] for name in defects)
        assert 'No such file' in defects['none.jpg']
        assert '5/5 images' in capfd.readouterr().err
    assert check_images(images, ['good.jpg']) == {}
    with pytest.raises(InputError, match='None of the 2 images is in .*images, not even a.jpg'):
        check_images(images, ['a.jpg', 'b.jpg'])


@pytest.fixture
def tool(monkeypatch, capfd):
    """Runs hg_plugin prepare mpii in this process; returns (exit message or None, what it printed)."""

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['prepare_mpii.py', *map(str, arguments)])
        try:
            message = main('prepare', 'mpii')
        except SystemExit as exit:
            message = exit.code
        return message, capfd.readouterr().out

    return run


def test_the_tool_writes_annotations_and_lists_bad_images(few, images, tool, tmp_path):
    path, out = save_release(tmp_path / 'few.mat', few[:3]), tmp_path / 'out'
    arguments = ('--mat', path, '--out', out, '--allow-partial', '--workers', 2)
    for name in ('000000001', '005808361'):
        (images / f'{name}.jpg').write_bytes((images / 'good.jpg').read_bytes())
    (images / '052475643.jpg').write_bytes((images / 'cut.jpg').read_bytes())
    message, printed = tool(*arguments, '--images', images)
    assert message.startswith('error: 1 of 3 images in ') and 'listed above' in message
    assert f'\n{images}/052475643.jpg ' in printed and len(os.listdir(out / 'annotations')) == 3

    (images / '052475643.jpg').write_bytes((images / 'good.jpg').read_bytes())
    message, printed = tool(*arguments, '--images', images)
    assert message is None
    assert 'train:      1 persons in      1 images\n  val:      2 persons in      2 images' in printed
    assert '1 other persons are in images of the validation set' in printed
    assert f'ln -s {images} {out}/images' in printed
    os.symlink(images, out / 'images')
    message, printed = tool(*arguments)
    assert message is None and 'All images are there' in printed and 'ln -s' not in printed
    message, printed = tool('--mat', path, '--out', tmp_path / 'unchecked', '--allow-partial', '--no-check')
    assert message is None and 'Checking' not in printed and 'single_person' not in printed


def test_the_tool_says_how_many_of_the_test_set_cannot_be_cropped(few, tool, tmp_path):
    path = save_release(tmp_path / 'few.mat', few)
    message, printed = tool('--mat', path, '--out', tmp_path / 'out', '--allow-partial', '--no-check')
    assert message is None and ' test:    250 persons in    100 images' in printed
    assert '\n101 persons that single_person lists for the test set lack objpos or scale' in printed


def test_the_command_line_ends_with_one_sentence(few, tmp_path, run):
    path = save_release(tmp_path / 'few.mat', few)
    code, printed = run('tools/prepare_mpii.py', '--mat', path, '--out', tmp_path / 'out', '--no-check')
    assert code == 1 and 'Traceback' not in printed
    assert printed.splitlines()[-1].startswith(
        f'error: {path} has 1 of 22,246 training and 2 of 2,958 validation'
    )
    assert not (tmp_path / 'out').exists()


def test_the_tool_misses_the_images_before_it_reads(few, tool, tmp_path):
    message, printed = tool('--mat', tmp_path / 'none.mat', '--out', tmp_path / 'out')
    assert (
        message.startswith(f'error: There is no folder {tmp_path}/out/images; ') and '--no-check' in message
    )
    assert 'Reading' not in printed
