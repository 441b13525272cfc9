"""Every export of exports/ has a.png, 100x50, with two persons, and sub/b.png, 200x100, with one."""

import json
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmpose.datasets import CocoDataset
from PIL import Image

from hg_plugin.prepare.exports import READERS, prepare_export
from hg_plugin.prepare.metainfo import partners_of
from hg_plugin.utils.errors import InputError

SIZES = {'a.png': (100, 50), 'sub/b.png': (200, 100)}
NAMES = ['nose', 'left_hand', 'right_hand']
# of a person: its image and its keypoints; the third of the second person is not labeled
PERSONS = [
    ('a.png', [(10, 10), (20, 20), (10, 30)]),
    ('a.png', [(60, 10), (70, 20), None]),
    ('sub/b.png', [(100, 20), (120, 60), (90, 60)]),
]
# what else is in them, and how often; of coco.json, a byte order mark and NaN for null
LEFT_OUT = {
    'coco': {'annotations without keypoints': 1, 'annotations of crowds': 1},
    'cvat': {'shapes of several points': 1, 'keypoints in no box': 1},
    'labelme': {'shapes of the type polygon': 2, 'files that cannot be used': 2},
    'labelstudio': {'tasks without annotations': 1},
    'yolo-pose': {'lines that are not': 2},
}


@pytest.fixture
def folder(tmp_path):
    """A copy of the exports, beside their images."""
    for name, (width, height) in SIZES.items():
        (tmp_path / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / 'images' / name), np.zeros((height, width, 3), np.uint8))
    shutil.copytree(Path(__file__).with_name('exports'), tmp_path, dirs_exist_ok=True)
    (tmp_path / 'export').mkdir()
    return tmp_path


@pytest.fixture
def coco(folder):
    """The content of the export of COCO, and a function that writes another one."""
    path = folder / 'coco/coco.json'
    return json.loads(path.read_text('utf-8-sig')), lambda content: path.write_text(json.dumps(content))


@pytest.mark.parametrize('kind', READERS)
def test_every_export_becomes_the_same_dataset(folder, kind):
    done = prepare_export(kind, folder / kind, folder / 'out', images=folder / 'images')
    assert sorted(done.persons.values()) == [1, 2] and done.images == dict(train=1, val=1)
    assert {name: done.keypoints[name] for name in NAMES} == dict(nose=3, left_hand=3, right_hand=2)
    assert done.pairs == [('left_hand', 'right_hand')]
    for reason, count in LEFT_OUT[kind].items():
        assert [len(places) for known, places in done.left_out.items() if known.startswith(reason)] == [count]
    assert len(done.left_out) == len(LEFT_OUT[kind])
    found = {}
    metainfo = dict(from_file=str(folder / 'out/metainfo.py'))
    for split in ('train', 'val'):
        dataset = CocoDataset(f'annotations/{split}.json', metainfo=metainfo, data_root=str(folder / 'out'))
        assert dataset.metainfo['flip_indices'][:3] == [0, 2, 1]
        for info in dataset:
            image = os.path.relpath(os.path.realpath(info['img_path']), folder / 'images')
            points = map(tuple, info['keypoints'][0].round(1).tolist())
            points = [p if visible else None for p, visible in zip(points, info['keypoints_visible'][0])]
            found[image, points[0]] = points[:3], info['bbox'][0]
    for image, points in PERSONS:
        written, box = found[image, points[0]]
        assert written == points
        labeled = np.array([point for point in points if point])
        # that of the export, or around the keypoints with a margin
        assert np.allclose(box, [*labeled.min(axis=0) - 2, *labeled.max(axis=0) + 2], atol=2)
    if kind in ('coco', 'cvat'):
        assert (0, 1) in dataset.metainfo['skeleton_links']


def test_what_cannot_be_used_is_counted(folder, coco):
    content, write = coco
    content['images'] += [
        dict(id=2, file_name='absent.png'),
        dict(id=3, file_name='b.png', width=20, height=10),
        dict(id=4, file_name='bad.png'),
    ]
    (folder / 'images/bad.png').write_text('no image')
    person = content['annotations'][0]
    content['annotations'] = content['annotations'][:3] + [
        *({**person, 'image_id': image} for image in (2, 3, 4, 5)),
        {**person, 'keypoints': [10, 10, 2, 900, 10, 2, 20, 30, 2]},
        {**person, 'keypoints': [10, 10, 0, 20, 10, 0, 20, 30, 0]},
        {**person, 'keypoints': [10, 10, 2, 0, 0, 0, 0, 0, 0]},
        {**person, 'keypoints': [10, 10, 2]},
    ]
    write(content)
    done = prepare_export('coco', folder / 'coco/coco.json', folder / 'out', images=folder / 'images')
    words = ['not there', 'another size', 'cannot be read', 'not listed', 'outside', 'without a labeled']
    for word in (*words, 'no area', 'names other'):
        assert [len(places) for reason, places in done.left_out.items() if word in reason] == [1], word
    assert sum(done.persons.values()) == 4


def test_images_of_one_name_are_told_apart_by_their_folders(folder, coco):
    shutil.copytree(folder / 'images/sub', folder / 'images/other')
    arguments = 'coco', folder / 'coco', folder / 'out'
    assert sum(prepare_export(*arguments, images=folder / 'images').persons.values()) == 3
    content, write = coco
    content['images'][1]['file_name'] = 'b.png'
    write(content)
    with pytest.raises(InputError, match='one of several'):
        prepare_export(*arguments, images=folder / 'images')


def test_sizes_are_those_of_upright_images(folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (50, 100)).save(folder / 'images/a.png', exif=exif)
    done = prepare_export('labelme', folder / 'labelme', folder / 'out', images=folder / 'images')
    assert sum(done.persons.values()) == 3


@pytest.mark.parametrize(
    'kind, name, text, word',
    [
        ('cvat', 'a.xml', '<annotations><track id="0"/></annotations>', 'CVAT for images'),
        ('cvat', 'a.xml', '<annotations>', 'cannot be read'),
        ('yolo-pose', 'data.yaml', 'names: {0: person}', 'kpt_shape'),
        ('coco', 'a.json', '[]', 'an object'),
        ('labelstudio', 'a.zip', '', 'tasks'),
    ],
)
def test_other_files_are_refused(folder, kind, name, text, word):
    (folder / 'export' / name).write_text(text)
    with pytest.raises(InputError, match=word if 'zip' not in name else 'unpacked'):
        prepare_export(kind, folder / 'export' / name, folder / 'out')
    assert not (folder / 'out').exists()


def test_left_and_right_of_names():
    pairs = [('left_knee', 'right_knee'), ('LeftEar', 'RightEar'), ('l_toe', 'r_toe'), ('hip-L', 'hip-R')]
    pairs += [('lwri', 'rwri'), ('heelL', 'heelR'), ('left hand', 'right hand')]
    names = ['nose', 'rim', 'tail', 'left_alone', *(name for pair in pairs for name in pair)]
    assert partners_of(names) == dict(pairs) | {right: left for left, right in pairs}


def test_the_split_is_by_image_and_the_same_again(folder):
    for index in range(8):
        cv2.imwrite(str(folder / f'images/{index}.png'), np.zeros((40, 40, 3), np.uint8))
    shapes = [
        dict(label=name, points=[[10 + group, 5 * index]], shape_type='point', group_id=group)
        for group in (1, 2)
        for index, name in enumerate(NAMES)
    ]
    for index in range(8):
        content = json.dumps(dict(imagePath=f'{index}.png', shapes=shapes))
        (folder / f'images/{index}.json').write_text(content)
    texts = set()
    for _ in range(2):
        done = prepare_export('labelme', folder / 'images', folder / 'out', val=0.25)
        assert done.persons == dict(train=12, val=4) and done.images == dict(train=6, val=2)
        texts.add((folder / 'out/annotations/val.json').read_text())
    assert len(texts) == 1
    assert Config.fromfile(folder / 'out/metainfo.py').dataset_info['dataset_name'] == 'out'
