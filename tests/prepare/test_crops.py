import json
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from hg_plugin.datasets import MPIIPoseDataset
from hg_plugin.prepare.crops import Reach, make_crops
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
    """Mean absolute differences of pictures and largest of keypoints, with equal random numbers, from full pictures and from crops."""
    dataset = cfg.train_dataloader.dataset
    full, cropped = (
        MPIIPoseDataset(dataset.ann_file, data_root=str(root), pipeline=dataset.pipeline)
        for root in (dataset.data_root, crops)
    )
    pictures, keypoints = [], []
    for index in range(len(full)):
        for draw in range(num_draws):
            np.random.seed(index + 100 * draw)
            a = full[index]
            np.random.seed(index + 100 * draw)
            b = cropped[index]
            pictures.append((a['inputs'].float() - b['inputs'].float()).abs().mean().item())
            visible = a['data_samples']['keypoints_visible'] > 0
            assert (visible == (b['data_samples']['keypoints_visible'] > 0)).all() and visible.any()
            keypoints.append(
                (a['data_samples']['keypoints'] - b['data_samples']['keypoints'])[visible].abs().max().item()
            )
    return np.array(pictures), np.array(keypoints)


def test_samples_from_crops_differ_by_jpeg_noise(config, sample_set, tmp_path, capsys):
    cfg = config(sample_set)
    make_crops(cfg, str(tmp_path / 'crops'))
    pictures, keypoints = differences(cfg, tmp_path / 'crops')
    assert pictures.mean() < 3 and pictures.max() < 5 and keypoints.max() < 0.01
    assert '10 crops into' in capsys.readouterr().out
    size = sum(path.stat().st_size for path in (tmp_path / 'crops/images').rglob('*.jpg'))
    assert size < sum(path.stat().st_size for path in (sample_set / 'images').iterdir()) / 1.5


def test_lossless_crops_give_the_same_samples(config, sample_set, tmp_path):
    cfg = config(sample_set)
    # a person so large that the picture is decoded smaller; and the strongest turns and scales, at random
    cfg.train_dataloader.dataset.pipeline[2].update(shift_prob=1)
    path = sample_set / TRAIN
    annotations = json.loads(path.read_text())
    annotations[0]['scale'] = 5.5
    path.write_text(json.dumps(annotations))
    make_crops(cfg, str(tmp_path / 'crops'), lossless=True, num_workers=2)
    assert {path.suffix for path in (tmp_path / 'crops/images').rglob('*.*')} == {
        '.bmp'
    }  # PNGs decode slower than whole JPEGs
    pictures, keypoints = differences(cfg, tmp_path / 'crops', 12)
    assert pictures.max() < 0.02 and keypoints.max() < 0.01


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


def test_validation_pictures_are_the_same(config, sample_set, tmp_path):
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


def test_mistakes(config, sample_set, tmp_path):
    crops = str(tmp_path / 'crops')
    cfg = config(sample_set)
    with pytest.raises(InputError, match='is the data set itself'):
        make_crops(cfg, str(sample_set))
    with pytest.raises(InputError, match='quality 0'):
        make_crops(cfg, crops, quality=0)
    half_body = config(sample_set)
    half_body.train_dataloader.dataset.pipeline.insert(1, dict(type='RandomHalfBody'))
    with pytest.raises(InputError, match='without RandomHalfBody'):
        make_crops(half_body, crops)
    with pytest.raises(InputError, match='is a CocoDataset'):
        coco = config(sample_set)
        coco.val_dataloader.dataset.type = 'CocoDataset'
        make_crops(coco, crops)
    assert not (tmp_path / 'crops').exists()
    picture = next((sample_set / 'images').iterdir())
    whole = picture.read_bytes()
    picture.write_bytes(whole[: len(whole) // 2])  # OpenCV would fill it up with gray
    with pytest.raises(InputError, match='2 of 10 crops could not be made'):
        make_crops(cfg, crops)
    assert not (tmp_path / 'crops' / TRAIN).exists()
    picture.write_bytes(whole)
    with pytest.raises(InputError, match='were made with quality 90 instead of 80'):
        make_crops(cfg, crops, quality=80)
    with pytest.raises(InputError, match='were made with lossless False instead of True'):
        make_crops(cfg, crops, lossless=True)
    make_crops(cfg, crops)
    turned = config(sample_set)
    turned.train_dataloader.dataset.pipeline[2].rotate_factor = 40
    with pytest.raises(InputError, match='made with mpii_train.rotation 30.0 instead of 40.0; give'):
        make_crops(turned, crops)
    settings = tmp_path / 'crops/crops.json'
    kept = settings.read_text()
    settings.write_text(kept[:20])
    with pytest.raises(InputError, match='crops.json was damaged'):
        make_crops(cfg, crops)
    settings.write_text(kept)
    picture.unlink()
    with pytest.raises(InputError, match='does not exist, but annotation'):
        make_crops(cfg, crops)


def test_a_disk_that_is_too_small_is_told_before_the_work(config, sample_set, tmp_path, monkeypatch, capsys):
    picture = next((sample_set / 'images').iterdir())
    picture.write_bytes(picture.read_bytes()[:500])
    crops = tmp_path / 'crops'
    with pytest.raises(InputError, match='could not be made'):
        make_crops(config(sample_set), str(crops))
    made = {path: path.stat().st_size for path in (crops / 'images').rglob('*.*')}
    assert len(made) == 8
    kept = next(iter(made))
    for path in {*made} - {kept}:
        path.unlink()
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=1000))
    with pytest.raises(
        InputError, match=r'has 1 kB free, and the crops need about [\d.]+ MB; choose another disk'
    ):
        make_crops(config(sample_set), str(crops))
    assert 'free: 1 kB' in capsys.readouterr().out
    assert [*(crops / 'images').rglob('*.*')] == [kept]  # of an earlier run
    # those that fail tell nothing about the size of the others
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: SimpleNamespace(free=sum(made.values()) * 1.1))
    shutil.rmtree(crops)
    with pytest.raises(InputError, match='choose another disk'):
        make_crops(config(sample_set), str(crops))
    assert not [*(crops / 'images').rglob('*.*')]


def test_a_person_outside_the_picture_stops_nobody(config, sample_set, tmp_path):
    path = sample_set / TRAIN
    annotations = json.loads(path.read_text())
    annotations[0]['center'], annotations[1]['center'] = [5000, 100], [-2000, -2000]
    path.write_text(json.dumps(annotations))
    cfg = config(sample_set)
    make_crops(cfg, str(tmp_path / 'crops'))
    pictures, keypoints = differences(cfg, tmp_path / 'crops', 2)
    assert pictures.max() < 5 and keypoints.max() < 0.01 and (pictures == 0).sum() >= 4


def test_the_farthest_corner_is_within_reach():
    reach = Reach((192, 256), 0.75, 1.25, (0.75, 1.25), 30.0, 0.16)
    width, height = reach.region(100)
    assert (width, height) == pytest.approx((125, 125 / 0.75))
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * [width / 2, height / 2] * 1.25
    for angle in np.deg2rad(np.linspace(-30, 30, 61)):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        farthest = np.abs(corners @ turn.T).max(axis=0) + 0.16 * np.array([width, height])
        assert (farthest <= reach.extent(100) + 1e-6).all()


def test_the_command_makes_what_a_config_trains_on(run, sample_set, tmp_path):
    code, out = run(
        'tools/make_crops.py', CONFIG, tmp_path / 'crops', '--data-root', sample_set, '--workers', 2
    )
    assert code == 0 and 'train with --data-root' in out and 'WARN' not in out, out
    assert all(max(cv2.imread(str(path)).shape) <= 600 for path in (tmp_path / 'crops/images').rglob('*.jpg'))
    code, out = run('tools/make_crops.py', CONFIG, tmp_path / 'crops', '--data-root', tmp_path / 'nothing')
    assert (
        code == 1
        and out.strip().splitlines()[-1].startswith('error: The annotation file')
        and 'Traceback' not in out
    )
