import copy
import os
import shutil

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from hg_plugin.datasets import MPIIPoseDataset
from hg_plugin.prepare.crops import make_crops
from hg_plugin.utils.errors import InputError

CONFIG = 'configs/hg_2stack_mpii.py'
TRAIN, VAL = 'annotations/mpii_train.json', 'annotations/mpii_val.json'


@pytest.fixture
def cfg(request, sample_set):
    cfg = Config.fromfile(request.config.rootpath / CONFIG)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.dataset.data_root = str(sample_set)
    return cfg


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
            a, b = a['data_samples'], b['data_samples']
            visible = a['keypoints_visible'] > 0
            assert (visible == (b['keypoints_visible'] > 0)).all() and visible.any()
            keypoints.append((a['keypoints'] - b['keypoints'])[visible].abs().max().item())
    return np.array(images), np.array(keypoints)


def test_samples_from_crops_differ_by_jpeg_noise(cfg, sample_set, tmp_path):
    make_crops(cfg, str(tmp_path / 'crops'))
    images, keypoints = differences(cfg, tmp_path / 'crops')
    assert images.mean() < 3 and images.max() < 5 and keypoints.max() < 0.01
    size = sum(path.stat().st_size for path in (tmp_path / 'crops/images').rglob('*.jpg'))
    assert size < sum(path.stat().st_size for path in (sample_set / 'images').iterdir()) / 1.5


def test_lossless_crops_give_the_same_samples(cfg, sample_set, tmp_path, edit):
    # a person so large that the image is decoded smaller
    cfg.train_dataloader.dataset.pipeline[1].update(shift_factor=0.16)
    with edit(sample_set / TRAIN) as annotations:
        annotations[0]['scale'] = 5.5
    make_crops(cfg, str(tmp_path / 'crops'), lossless=True, num_workers=2)
    # PNGs decode slower than whole JPEGs
    assert {path.suffix for path in (tmp_path / 'crops/images').rglob('*.*')} == {'.bmp'}
    images, keypoints = differences(cfg, tmp_path / 'crops', 12)
    # where a sample is so small that the crop is reduced again, means of means differ by rounding
    assert (images < 0.02).mean() > 0.9 and images.max() < 0.25 and keypoints.max() < 0.01


def test_validation_persons_are_the_same(cfg, sample_set, tmp_path):
    make_crops(cfg, str(tmp_path / 'crops'))
    pipeline = cfg.val_dataloader.dataset.pipeline
    load = dict(headbox_file='annotations/mpii_gt_val.mat', test_mode=True, pipeline=pipeline)
    full, cropped = (
        MPIIPoseDataset(VAL, data_root=str(root), **load) for root in (sample_set, tmp_path / 'crops')
    )
    for index in range(len(full)):
        a, b = (data[index]['inputs'] for data in (full, cropped))
        # but for pixels that lie on the edge between two of the 1/32 pixel to which OpenCV rounds
        assert (a != b).float().mean() < 0.01 and (a.float() - b.float()).abs().mean() < 0.02
        a, b = (data.get_data_info(index) for data in (full, cropped))
        width = [x['bbox'][0, 2] - x['bbox'][0, 0] for x in (a, b)]
        assert b['head_size'] / width[1] == pytest.approx(a['head_size'] / width[0], rel=1e-5)
        seen = a['keypoints_visible'][0] > 0
        inside = [(x['keypoints'][0, seen] - x['bbox'][0, :2]) / w for x, w in zip((a, b), width)]
        assert np.allclose(*inside, atol=1e-4) and width[1] <= 2 * 256 / 1.25 + 0.01


def test_it_goes_on_where_it_was_interrupted(cfg, sample_set, tmp_path, capsys):
    crops = tmp_path / 'crops'
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


def test_settings_and_folders_that_do_not_fit(cfg, sample_set, tmp_path):
    crops, before = tmp_path / 'crops', contents(sample_set)
    half_body, coco, turned = copy.deepcopy(cfg), copy.deepcopy(cfg), copy.deepcopy(cfg)
    half_body.train_dataloader.dataset.pipeline.insert(1, dict(type='RandomHalfBody'))
    coco.val_dataloader.dataset.type = 'CocoDataset'
    turned.train_dataloader.dataset.pipeline[1].rotate_factor = 40
    for other, out, message in (
        (cfg, sample_set, 'not empty'),
        (half_body, crops, 'RandomHalfBody'),
        (coco, crops, 'CocoDataset'),
    ):
        with pytest.raises(InputError, match=message):
            make_crops(other, str(out))
    assert contents(sample_set) == before and not crops.exists()
    make_crops(cfg, str(crops))
    for other, options, message in (
        (cfg, dict(quality=80), 'crops.json .*quality 80'),
        (cfg, dict(lossless=True), 'lossless'),
        (turned, {}, 'train.rotate_factor 40'),
    ):
        with pytest.raises(InputError, match=message):
            make_crops(other, str(crops), **options)


def test_images_that_are_cut_off_or_missing(cfg, sample_set, tmp_path, capsys):
    image = next((sample_set / 'images').iterdir())
    image.write_bytes(image.read_bytes()[:10_000])  # OpenCV would fill it up with gray
    for reason in ('truncated', 'No such file'):
        with pytest.raises(InputError, match='2 of .* crops could not'):
            make_crops(cfg, str(tmp_path / 'crops'))
        assert reason in capsys.readouterr().out
        image.unlink(missing_ok=True)
    assert not (tmp_path / 'crops' / TRAIN).exists()


@pytest.mark.parametrize('key', ['ann_file', 'headbox_file'])
def test_annotations_outside_the_data_root_are_not_overwritten(cfg, sample_set, tmp_path, key):
    dataset = cfg.val_dataloader.dataset
    outside = shutil.copy(sample_set / dataset[key], tmp_path)
    dataset[key] = os.path.relpath(outside, sample_set)
    before = contents(tmp_path)
    with pytest.raises(InputError, match='outside'):
        make_crops(cfg, str(tmp_path / 'crops'))
    assert contents(tmp_path) == before


def test_a_person_outside_the_image_stops_nobody(cfg, sample_set, tmp_path, edit):
    with edit(sample_set / TRAIN) as annotations:
        annotations[0]['center'], annotations[1]['center'] = [5000, 100], [-2000, -2000]
    make_crops(cfg, str(tmp_path / 'crops'))
    images, keypoints = differences(cfg, tmp_path / 'crops', 2)
    assert images.max() < 5 and keypoints.max() < 0.01 and (images == 0).sum() >= 4


def test_the_command_makes_what_a_config_trains_on(sample_set, tmp_path, tool):
    options = '--data-root', sample_set, '--workers', 2
    code, printed = tool('hg_plugin/__main__.py', 'make_crops', CONFIG, tmp_path / 'crops', *options)
    assert code == 0 and 'the new data_root' in printed and 'WARN' not in printed
    assert all(max(cv2.imread(str(path)).shape) <= 600 for path in (tmp_path / 'crops/images').rglob('*.jpg'))
