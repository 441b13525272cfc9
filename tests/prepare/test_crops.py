import errno
import json
import os
import shutil

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS

from hg_plugin.datasets import MPIIPoseDataset, TopdownCrop
from hg_plugin.prepare.crops import make_crops, reach
from hg_plugin.utils.errors import InputError

CONFIG = 'configs/hg_2stack_mpii.py'
TRAIN, VAL = 'annotations/mpii_train.json', 'annotations/mpii_val.json'


@pytest.fixture
def config(request):

    def config(data_root, name=CONFIG):
        cfg = Config.fromfile(request.config.rootpath / name)
        for loader in ('train_dataloader', 'val_dataloader'):
            cfg[loader].dataset.data_root = str(data_root)
        return cfg

    return config


@pytest.fixture
def sample_set(real_data, tmp_path):
    return shutil.copytree(real_data('mpii_sample'), tmp_path / 'mpii')


def differences(cfg, crops, num_draws=6):
    """Mean differences of images and largest of keypoints between samples of full images and of crops."""
    dataset = cfg.train_dataloader.dataset
    full, cropped = (
        MPIIPoseDataset(dataset.ann_file, data_root=str(root), pipeline=dataset.pipeline)
        for root in (dataset.data_root, crops)
    )
    images, keypoints = [], []
    for index in range(len(full)):
        for draw in range(num_draws):
            np.random.seed(index + 100 * draw)
            a = full[index]
            np.random.seed(index + 100 * draw)
            b = cropped[index]
            images.append((a['inputs'].float() - b['inputs'].float()).abs().mean().item())
            visible = a['data_samples']['keypoints_visible'] > 0
            assert (visible == (b['data_samples']['keypoints_visible'] > 0)).all() and visible.any()
            keypoints.append(
                (a['data_samples']['keypoints'] - b['data_samples']['keypoints'])[visible].abs().max().item()
            )
    return np.array(images), np.array(keypoints)


def test_samples_from_crops_differ_by_jpeg_noise(config, sample_set, tmp_path):
    cfg = config(sample_set)
    make_crops(cfg, str(tmp_path / 'crops'))
    images, keypoints = differences(cfg, tmp_path / 'crops')
    assert images.mean() < 3 and images.max() < 5 and keypoints.max() < 0.01
    size = sum(path.stat().st_size for path in (tmp_path / 'crops/images').rglob('*.jpg'))
    assert size < sum(path.stat().st_size for path in (sample_set / 'images').iterdir()) / 1.5


def test_lossless_crops_give_the_same_samples(config, sample_set, tmp_path):
    cfg = config(sample_set)
    # a person so large that the image is decoded smaller
    cfg.train_dataloader.dataset.pipeline[1].update(shift_factor=0.16)
    path = sample_set / TRAIN
    annotations = json.loads(path.read_text())
    annotations[0]['scale'] = 5.5
    path.write_text(json.dumps(annotations))
    make_crops(cfg, str(tmp_path / 'crops'), lossless=True, num_workers=2)
    assert {path.suffix for path in (tmp_path / 'crops/images').rglob('*.*')} == {
        '.bmp'
    }  # PNGs decode slower than whole JPEGs
    images, keypoints = differences(cfg, tmp_path / 'crops', 12)
    # where a sample is so small that the crop is reduced again, means of means differ by rounding
    assert (images < 0.02).mean() > 0.9 and images.max() < 0.25 and keypoints.max() < 0.01


def test_head_sizes_and_joints_of_the_validation_set_are_the_crops(config, sample_set, tmp_path):
    cfg = config(sample_set)
    make_crops(cfg, str(tmp_path / 'crops'))
    load = dict(headbox_file='annotations/mpii_gt_val.mat', test_mode=True, pipeline=[])
    full, cropped = (
        MPIIPoseDataset(VAL, data_root=str(root), **load) for root in (sample_set, tmp_path / 'crops')
    )
    for a, b in zip(full, cropped):
        width = [x['bbox'][0, 2] - x['bbox'][0, 0] for x in (a, b)]
        assert b['head_size'] / width[1] == pytest.approx(a['head_size'] / width[0], rel=1e-5)
        seen = a['keypoints_visible'][0] > 0
        inside = [(x['keypoints'][0, seen] - x['bbox'][0, :2]) / w for x, w in zip((a, b), width)]
        assert np.allclose(*inside, atol=1e-4) and width[1] <= 2 * 256 / 1.25 + 0.01


def test_validation_images_are_the_same(config, sample_set, tmp_path):
    cfg = config(sample_set)
    make_crops(cfg, str(tmp_path / 'crops'))
    load = dict(
        headbox_file='annotations/mpii_gt_val.mat',
        test_mode=True,
        pipeline=cfg.val_dataloader.dataset.pipeline,
    )
    full, cropped = (
        MPIIPoseDataset(VAL, data_root=str(root), **load) for root in (sample_set, tmp_path / 'crops')
    )
    for a, b in zip(full, cropped):
        # but for pixels that lie on the edge between two of the 1/32 pixel to which OpenCV rounds
        assert (a['inputs'] != b['inputs']).float().mean() < 0.01 and (
            a['inputs'].float() - b['inputs'].float()
        ).abs().mean() < 0.02


def test_it_goes_on_where_it_was_interrupted(config, sample_set, tmp_path, capsys):
    crops = tmp_path / 'crops'
    cfg = config(sample_set)
    make_crops(cfg, str(crops))
    first, *others = sorted((crops / 'images').rglob('*_*.*p*'))
    before = {path: path.stat().st_mtime_ns for path in others}
    content = first.read_bytes()
    first.unlink()
    (crops / TRAIN).unlink()
    make_crops(cfg, str(crops))
    assert '9 of 10 crops are there already' in capsys.readouterr().out
    assert first.read_bytes() == content and (crops / TRAIN).is_file()
    assert before == {path: path.stat().st_mtime_ns for path in others}


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob('*.*') if path.is_file()}


def test_mistakes(config, sample_set, tmp_path, capsys):
    crops = str(tmp_path / 'crops')
    cfg = config(sample_set)
    before = contents(sample_set)
    with pytest.raises(InputError, match='is not empty and holds no crops.json'):
        make_crops(cfg, str(sample_set))
    assert contents(sample_set) == before
    half_body = config(sample_set)
    half_body.train_dataloader.dataset.pipeline.insert(1, dict(type='RandomHalfBody'))
    with pytest.raises(InputError, match=r"starts with \['GetBBoxCenterScale', 'RandomHalfBody'\]"):
        make_crops(half_body, crops)
    with pytest.raises(InputError, match='val_dataloader.dataset is a CocoDataset'):
        coco = config(sample_set)
        coco.val_dataloader.dataset.type = 'CocoDataset'
        make_crops(coco, crops)
    assert not (tmp_path / 'crops').exists()
    image = next((sample_set / 'images').iterdir())
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2])  # OpenCV would fill it up with gray
    with pytest.raises(InputError, match='2 of 10 crops could not be made'):
        make_crops(cfg, crops)
    assert not (tmp_path / 'crops' / TRAIN).exists()
    image.write_bytes(whole)
    with pytest.raises(InputError, match='holds crops made with quality 90 instead of 80'):
        make_crops(cfg, crops, quality=80)
    with pytest.raises(InputError, match='holds crops made with lossless False instead of True'):
        make_crops(cfg, crops, lossless=True)
    make_crops(cfg, crops)
    turned = config(sample_set)
    turned.train_dataloader.dataset.pipeline[1].rotate_factor = 40
    with pytest.raises(InputError, match='made with train.rotate_factor 30 instead of 40; give'):
        make_crops(turned, crops)
    shutil.rmtree(crops)
    image.unlink()
    with pytest.raises(InputError, match='2 of 10 crops could not be made'):
        make_crops(cfg, crops)
    assert f'{image} cannot be read: No such file' in capsys.readouterr().out


def test_a_disk_that_fills_up_ends_the_work_and_keeps_whole_crops(config, sample_set, tmp_path, monkeypatch):
    crops = tmp_path / 'crops'
    replace, attempts = os.replace, tmp_path / 'attempts'

    def full(source, target):
        if 'images' in str(target):
            with open(attempts, 'a') as file:
                file.write('x')
            if attempts.stat().st_size > 3:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(InputError, match='cannot be written: No space left on device'):
        make_crops(config(sample_set), str(crops))
    made = contents(crops / 'images')
    assert len(made) == 3 and attempts.stat().st_size <= 3 + 8  # a worker's task is of eight crops
    assert not (crops / TRAIN).exists()
    monkeypatch.undo()
    make_crops(config(sample_set), str(crops))
    assert made.items() <= contents(crops / 'images').items() and (crops / TRAIN).exists()


@pytest.mark.parametrize('key', ['ann_file', 'headbox_file'])
@pytest.mark.parametrize('absolute', [True, False])
def test_annotations_outside_the_data_root_are_not_overwritten(config, sample_set, tmp_path, key, absolute):
    cfg, dataset = config(sample_set), config(sample_set).val_dataloader.dataset
    (tmp_path / 'ann').mkdir()
    outside = shutil.copy(sample_set / dataset[key], tmp_path / 'ann')
    cfg.val_dataloader.dataset[key] = str(outside) if absolute else os.path.relpath(outside, sample_set)
    before = contents(tmp_path)
    with pytest.raises(InputError, match=f'ann/mpii_.* is outside of data_root {sample_set}'):
        make_crops(cfg, str(tmp_path / 'crops'))
    assert contents(tmp_path) == before and not (tmp_path / 'crops').exists()


def test_images_in_another_folder_of_the_data_root(config, sample_set, tmp_path):
    cfg, crops = config(sample_set), tmp_path / 'crops'
    shutil.move(sample_set / 'images', sample_set / 'photos')
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_prefix.img = 'photos'
    make_crops(cfg, str(crops))
    cfg.train_dataloader.dataset.data_root = str(crops)
    person = DATASETS.build(cfg.train_dataloader.dataset)[0]
    assert person['inputs'].shape == (3, 256, 256) and not (crops / 'images').exists()


def test_a_person_outside_the_image_stops_nobody(config, sample_set, tmp_path):
    path = sample_set / TRAIN
    annotations = json.loads(path.read_text())
    annotations[0]['center'], annotations[1]['center'] = [5000, 100], [-2000, -2000]
    path.write_text(json.dumps(annotations))
    cfg = config(sample_set)
    make_crops(cfg, str(tmp_path / 'crops'))
    images, keypoints = differences(cfg, tmp_path / 'crops', 2)
    assert images.max() < 5 and keypoints.max() < 0.01 and (images == 0).sum() >= 4


def test_the_farthest_corner_is_within_reach():
    topdown = TopdownCrop((192, 256), rotate_factor=30, scale_factor=(0.75, 1.25), shift_factor=0.16)
    width, height = topdown.region(100, 100)[0]
    assert (width, height) == pytest.approx((100, 100 / 0.75))
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2] * 1.25
    for angle in np.deg2rad(np.linspace(-30, 30, 61)):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        farthest = np.abs(corners @ turn.T).max(axis=0) + 0.16 * 100
        assert (farthest <= reach(topdown, 100) + 1e-6).all()


def test_the_command_makes_what_a_config_trains_on(run, sample_set, tmp_path):
    code, out = run(
        'tools/make_crops.py', CONFIG, tmp_path / 'crops', '--data-root', sample_set, '--workers', 2
    )
    assert code == 0 and 'the new data_root' in out and 'WARN' not in out, out
    assert all(max(cv2.imread(str(path)).shape) <= 600 for path in (tmp_path / 'crops/images').rglob('*.jpg'))
    code, out = run('tools/make_crops.py', CONFIG, tmp_path / 'crops', '--data-root', tmp_path / 'nothing')
    assert code == 1 and 'Traceback' not in out
    assert 'mpii_train.json does not exist; correct its path' in out.strip().splitlines()[-1]
