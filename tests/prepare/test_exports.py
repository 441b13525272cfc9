"""Every export here has two images: a.png, 100x50, with two persons, and sub/b.png, 200x100, with one."""

import json
import os

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


def box_of(points):
    labeled = np.array([point for point in points if point])
    return *(labeled.min(axis=0) - 2).tolist(), *(labeled.max(axis=0) + 2).tolist()


def coco(folder):
    images = [dict(id=i, file_name=name) for i, name in enumerate(SIZES)]
    annotations = [
        dict(
            id=i,
            image_id=[*SIZES].index(image),
            category_id=7,
            # NaN stands for null in some exports
            keypoints=[
                value for point in points for value in ((*point, 2) if point else (None, float('nan'), 0))
            ],
        )
        for i, (image, points) in enumerate(PERSONS)
    ]
    annotations += [{**annotations[0], 'keypoints': []}, {**annotations[0], 'iscrowd': 1}]
    category = dict(id=7, name='person', keypoints=NAMES, skeleton=[[1, 2], [1, 3]])
    content = dict(images=images, annotations=annotations, categories=[category])
    (folder / 'coco.json').write_text(json.dumps(content), 'utf-8-sig')
    return {'annotations without keypoints': 1, 'annotations of crowds': 1}


CVAT = """<annotations><version>1.1</version><meta><task><labels><label><name>person</name>
<type>skeleton</type><svg>&lt;line data-type="edge" data-node-from="1" data-node-to="2"&gt;&lt;/line&gt;
&lt;circle data-node-id="1" data-label-name="nose"&gt;&lt;/circle&gt;
&lt;circle data-node-id="2" data-label-name="left_hand"&gt;&lt;/circle&gt;</svg>
</label></labels></task></meta>
<image name="a.png" width="100" height="50">{skeletons}<points label="person" points="1,2;3,4"/></image>
<image name="sub/b.png" width="200" height="100"><box label="person" xtl="88" ytl="18" xbr="122" ybr="62"/>
{points}<points label="tail" points="5,5"/></image></annotations>"""


def cvat(folder):
    skeletons = [
        '<skeleton label="person">'
        + ''.join(
            f'<points label="{name}" outside="{int(not point)}" points="{"%s,%s" % (point or (0, 0))}"/>'
            for name, point in zip(NAMES, points)
        )
        + '</skeleton>'
        for image, points in PERSONS
        if image == 'a.png'
    ]
    loose = [f'<points label="{name}" points="{x},{y}"/>' for name, (x, y) in zip(NAMES, PERSONS[2][1])]
    text = CVAT.format(skeletons=''.join(skeletons), points=''.join(loose))
    (folder / 'annotations.xml').write_text(text)
    return {'shapes of several points': 1, 'keypoints in no box': 1}


def labelme(folder):
    for image, size in SIZES.items():
        shapes = [dict(label='hull', points=[[0, 0], [1, 1], [2, 0]], shape_type='polygon')]
        for _, points in (person for person in PERSONS if person[0] == image):
            left, top, right, bottom = box_of(points)
            shapes.append(dict(label='person', points=[[right, top], [left, bottom]], shape_type='rectangle'))
            for name, point in zip(NAMES, points):
                if point:
                    shape = dict(label=name, points=[point], shape_type='point', group_id=None)
                    shapes.append(shape)
        content = dict(imagePath=f'..\\{image}', imageWidth=size[0], imageHeight=size[1], shapes=shapes)
        (folder / f'{size[0]}.json').write_text(json.dumps(content))
    (folder / 'other.json').write_text('[]')
    (folder / 'damaged.json').write_text('{')
    return {
        'shapes of the type polygon': 2,
        'JSON files without shapes': 1,
        'JSON files that cannot be used': 1,
    }


def labelstudio(folder):
    tasks = [dict(data=dict(image='/data/upload/3/0123abcd-a.png'), annotations=[])]
    for image, size in SIZES.items():
        address = '/data/upload/3/0123abcd-a.png' if image == 'a.png' else '/data/local-files/?d=sub/b.png'
        results = []
        for index, (_, points) in enumerate(person for person in PERSONS if person[0] == image):
            left, top, right, bottom = np.array(box_of(points)) * 100 / (*size, *size)
            value = dict(x=left, y=top, width=right - left, height=bottom - top, rotation=0)
            results.append(dict(id=f'box{index}', type='rectanglelabels', value=value))
            for name, point in zip(NAMES, points):
                if point:
                    x, y = np.array(point) * 100 / size
                    value = dict(x=x, y=y, width=0.3, keypointlabels=[name])
                    one = dict(
                        id=f'{name}{index}', type='keypointlabels', value=value, parentID=f'box{index}'
                    )
                    results.append(one)
        tasks.append(dict(data=dict(image=address), annotations=[dict(result=results, was_cancelled=False)]))
    (folder / 'export.json').write_text(json.dumps(tasks))
    return {'tasks without annotations': 1}


def yolo_pose(folder):
    (folder / 'data.yaml').write_text(
        f'kpt_shape: [3, 3]\nflip_idx: [0, 2, 1]\nnames: {{0: person}}\nkpt_names: {{0: {NAMES}}}\n'
    )
    for image, size in SIZES.items():
        lines = ['0 0.5 0.5 1 1']
        for _, points in (person for person in PERSONS if person[0] == image):
            box = np.array(box_of(points)).reshape(2, 2) / size
            row = [0, *box.mean(axis=0), *(box[1] - box[0])]
            for point in points:
                row += [*(np.array(point) / size), 2] if point else [0, 0, 0]
            lines.append(' '.join(map(str, row)))
        file = folder / 'labels' / f'{image[:-4]}.txt'
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text('\n'.join(lines))
    return {'lines that are not': 2}


EXPORTS = {'coco': coco, 'cvat': cvat, 'labelme': labelme, 'labelstudio': labelstudio, 'yolo-pose': yolo_pose}


@pytest.fixture
def folder(tmp_path):
    for name, (width, height) in SIZES.items():
        (tmp_path / 'images' / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / 'images' / name), np.zeros((height, width, 3), np.uint8))
    (tmp_path / 'export').mkdir()
    return tmp_path


def datasets(out):
    return [
        CocoDataset(
            data_root=str(out),
            ann_file=f'annotations/{split}.json',
            metainfo=dict(from_file=f'{out}/metainfo.py'),
        )
        for split in ('train', 'val')
    ]


@pytest.mark.parametrize('kind', READERS)
def test_every_export_becomes_the_same_dataset(folder, kind):
    expected = EXPORTS[kind](folder / 'export')
    done = prepare_export(kind, folder / 'export', folder / 'out', images=folder / 'images')
    assert sorted(done.persons.values()) == [1, 2] and done.images == dict(train=1, val=1)
    assert {name: done.keypoints[name] for name in NAMES} == dict(nose=3, left_hand=3, right_hand=2)
    assert done.pairs == [('left_hand', 'right_hand')]
    for reason, count in expected.items():
        assert [len(places) for known, places in done.left_out.items() if known.startswith(reason)] == [count]
    assert len(done.left_out) == len(expected)
    found = {}
    for dataset in datasets(folder / 'out'):
        assert dataset.metainfo['flip_pairs'] == [(1, 2)] or dataset.metainfo['flip_indices'][:3] == [0, 2, 1]
        for info in dataset:
            image = os.path.relpath(os.path.realpath(info['img_path']), folder / 'images')
            points = [
                tuple(point) if visible else None
                for point, visible in zip(
                    info['keypoints'][0].round(1).tolist(), info['keypoints_visible'][0]
                )
            ]
            found[image, points[0]] = points[:3], info['bbox'][0]
    for image, points in PERSONS:
        written, box = found[image, points[0]]
        assert written == points
        # that of the export, or around the keypoints with a margin
        assert np.allclose(box, box_of(points), atol=2)
    if kind in ('coco', 'cvat'):
        assert (0, 1) in dataset.metainfo['skeleton_links']


def test_what_cannot_be_used_is_counted(folder):
    coco(folder / 'export')
    content = json.loads((folder / 'export/coco.json').read_text('utf-8-sig'))
    content['images'] += [
        dict(id=2, file_name='absent.png'),
        dict(id=3, file_name='b.png', width=20, height=10),
    ]
    content['images'].append(dict(id=4, file_name='bad.png'))
    (folder / 'images/bad.png').write_text('no image')
    person = content['annotations'][0]
    content['annotations'] = content['annotations'][:3] + [
        *({**person, 'image_id': image} for image in (2, 3, 4, 5)),
        {**person, 'keypoints': [10, 10, 2, 900, 10, 2, 20, 30, 2]},
        {**person, 'keypoints': [10, 10, 0, 20, 10, 0, 20, 30, 0]},
        {**person, 'keypoints': [10, 10, 2, 0, 0, 0, 0, 0, 0]},
        {**person, 'keypoints': [10, 10, 2]},
    ]
    (folder / 'export/coco.json').write_text(json.dumps(content))
    done = prepare_export('coco', folder / 'export/coco.json', folder / 'out', images=folder / 'images')
    words = (
        'not there',
        'another size',
        'cannot be read',
        'not listed',
        'outside',
        'without a labeled',
        'no area',
    )
    for word in (*words, 'names other'):
        assert [len(places) for reason, places in done.left_out.items() if word in reason] == [1], word
    assert sum(done.persons.values()) == 4


def test_images_of_one_name_are_told_apart_by_their_folders(folder):
    coco(folder / 'export')
    (folder / 'images/other').mkdir()
    (folder / 'images/other/b.png').write_bytes((folder / 'images/sub/b.png').read_bytes())
    done = prepare_export('coco', folder / 'export', folder / 'out', images=folder / 'images')
    assert sum(done.persons.values()) == 3
    content = json.loads((folder / 'export/coco.json').read_text('utf-8-sig'))
    content['images'][1]['file_name'] = 'b.png'
    (folder / 'export/coco.json').write_text(json.dumps(content))
    with pytest.raises(InputError, match='one of several'):
        prepare_export('coco', folder / 'export', folder / 'out', images=folder / 'images')


def test_sizes_are_those_of_upright_images(folder):
    labelme(folder / 'export')
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (50, 100)).save(folder / 'images/a.png', exif=exif)
    done = prepare_export('labelme', folder / 'export', folder / 'out', images=folder / 'images')
    assert sum(done.persons.values()) == 3


@pytest.mark.parametrize(
    'kind, name, text, word',
    [
        ('cvat', 'a.xml', '<annotations><track id="0"/></annotations>', 'CVAT for images'),
        ('cvat', 'a.xml', '<annotations>', 'cannot be read'),
        ('yolo-pose', 'data.yaml', 'names: {0: person}', 'kpt_shape'),
        ('coco', 'a.json', '[]', 'JSON files without'),
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
    texts = []
    for _ in range(2):
        done = prepare_export('labelme', folder / 'images', folder / 'out', val=0.25)
        assert done.persons == dict(train=12, val=4) and done.images == dict(train=6, val=2)
        texts.append((folder / 'out/annotations/val.json').read_text())
    assert texts[0] == texts[1]
    assert Config.fromfile(folder / 'out/metainfo.py').dataset_info['dataset_name'] == 'out'
