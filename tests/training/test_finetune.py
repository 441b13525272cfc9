import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config

from hg_plugin.prepare.exports import prepare_export
from hg_plugin.training.browse import browse
from hg_plugin.training.config_check import check_config
from hg_plugin.training.finetune import adapted_weights, finetune, words_of, write_config
from hg_plugin.training.runner import train
from hg_plugin.utils.checkpoint import read_checkpoint, weights_of
from hg_plugin.utils.config import read_config
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.weights import DEFAULT, shipped_networks

ROOT = Path(__file__).parents[2]
NAMES = ['right_wrist', 'tail', 'left_wrist']
SMALL = {
    'train_cfg': dict(max_epochs=1, val_interval=1),
    'train_dataloader': dict(num_workers=0, persistent_workers=False),
    'val_dataloader': dict(num_workers=0, persistent_workers=False),
}


@pytest.fixture
def data(tmp_path):
    """Six persons in the layout of COCO, of whom one validates."""
    rng = np.random.default_rng(0)
    for index in range(6):
        cv2.imwrite(str(tmp_path / f'{index}.png'), rng.integers(0, 255, (40, 50, 3), np.uint8))
        shapes = [
            dict(label=name, points=[(10 + 9 * k, 8 + 7 * k + index)], shape_type='point')
            for k, name in enumerate(NAMES)
        ]
        (tmp_path / f'{index}.json').write_text(json.dumps(dict(imagePath=f'{index}.png', shapes=shapes)))
    prepare_export('labelme', tmp_path, tmp_path / 'data')
    return tmp_path / 'data'


def test_a_training_ends_with_drawn_validation_photographs_and_keeps_the_config(data, capsys):
    config, checkpoint = finetune(data, cfg_options=SMALL | {'train_cfg.max_epochs': 2})
    assert '2/2 steps, PCK 0.' in capsys.readouterr().err
    assert checkpoint.with_suffix('.scores.json').is_file()
    assert checkpoint.is_file() and checkpoint.parent == data / 'work_dirs/finetune'
    sheet = cv2.imread(str(checkpoint.parent / 'val.png'))
    assert sheet.shape[:2] == (20 + 192 + 20, 4 * 2 * 192)  # a title, and one person of a row of four
    (log,) = checkpoint.parent.glob('*/*.log')
    assert 'PCK:' in log.read_text()
    own = config.read_text().replace('num_keypoints=3', 'num_keypoints=3, norm_eval=True')
    config.write_text(own)
    finetune(data, cfg_options=SMALL | {'train_cfg.max_epochs': 3}, resume=True)
    assert config.read_text() == own
    assert '3/3 steps' in capsys.readouterr().err and not [*checkpoint.parent.glob('earlier*')]


@pytest.mark.parametrize('persons, batch, epochs', [(6, 5, 100), (48, 16, 34), (2000, 16, 10)])
def test_the_schedule_fits_the_number_of_persons(data, edit, persons, batch, epochs):
    if persons > 6:
        with edit(data / 'annotations/train.json') as content:
            content['annotations'] = content['annotations'][:1] * persons
    write_config(data)
    cfg = read_config(data / 'finetune.py')
    check_config(cfg)
    assert cfg.train_dataloader.batch_size == batch and cfg.train_cfg.max_epochs == epochs
    assert cfg.model.backbone.num_keypoints == 3
    assert Config.fromfile(cfg.load_from.replace('start.pth', 'metainfo.py'))


def test_a_keypoint_starts_as_the_one_of_its_name():
    path = str(shipped_networks()[DEFAULT].checkpoint)
    stock = weights_of(read_checkpoint(path), path)
    weights, known = adapted_weights(['tail', 'LeftWrist', 'neck'])
    assert known == 2
    score, join = 'backbone.scores.1.weight', 'backbone.joins.0.from_heatmaps.weight'
    assert torch.equal(weights[score][1], stock[score][15].float())
    assert torch.equal(weights[score][2], stock[score][8].float())
    assert torch.allclose(weights[score][0], stock[score].float().mean(dim=0), atol=1e-6)
    assert torch.equal(weights[join][:, 1], stock[join][:, 15].float())
    assert torch.equal(weights['backbone.stem_conv.0.weight'], stock['backbone.stem_conv.0.weight'])


def test_names_of_one_keypoint_are_the_same():
    same = 'left_wrist', 'LeftWrist', 'wrist-l', 'L wrist', 'LEFT_WRIST'
    assert len({words_of(name) for name in same}) == 1
    assert words_of('head') == words_of('head_top') != words_of('nose')


def test_a_folder_without_a_dataset_is_refused(data, edit, tmp_path):
    with pytest.raises(InputError, match='hg_plugin prepare'):
        finetune(tmp_path)
    with edit(data / 'annotations/train.json') as content:
        del content['annotations'][1:]
    with pytest.raises(InputError, match='1 persons'):
        finetune(data)
    assert not (data / 'finetune.py').exists()


@pytest.mark.parametrize('channels, color_type', [(1, 'grayscale'), (4, 'unchanged')])
def test_images_of_one_and_four_channels_train(data, channels, color_type):
    for index in range(6):
        shape = (40, 50) if channels == 1 else (40, 50, 4)
        cv2.imwrite(str(data.parent / f'{index}.png'), np.full(shape, 40 * index, np.uint8))
    cfg = Config.fromfile(ROOT / 'configs/_base_/finetune.py')
    load = dict(type='LoadImage', color_type=color_type)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        loader.dataset.update(data_root=str(data), metainfo=dict(from_file=str(data / 'metainfo.py')))
        loader.dataset.pipeline = [load, *loader.dataset.pipeline]
    cfg.model.backbone.update(num_keypoints=3, channels=8, depth=1, in_channels=channels)
    cfg.model.data_preprocessor.update(mean=[9.0] * channels, std=[9.0] * channels, bgr_to_rgb=False)
    cfg.train_cfg.update(max_epochs=1, val_interval=1)
    cfg.param_scheduler, cfg.custom_hooks = [], [dict(type='StageHeatmapHook', interval=1)]
    model = train(cfg, work_dir=str(data / 'run'))
    inputs = model.data_preprocessor(dict(inputs=[torch.full((channels, 4, 4), 27)]))['inputs']
    assert inputs.shape == (1, channels, 4, 4) and (inputs == 2).all()
    assert [*data.glob('run/best_PCK*.pth')]
    _, num = browse(cfg, data / 'browse.png', num=2)
    assert num == 2
