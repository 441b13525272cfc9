from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, TRANSFORMS

from hg_plugin.datasets import TopdownCrop
from hg_plugin.training.config_check import check_config
from hg_plugin.utils.config import parts_of, read_config

CONFIGS = sorted((Path(__file__).parents[1] / 'configs').glob('*.py'))


@pytest.fixture(scope='module')
def parameters():
    """Of each config, by its name, as the model index has them."""
    index = yaml.safe_load((CONFIGS[0].parents[1] / 'model-index.yml').read_text())
    return {Path(model['Config']).stem: model['Metadata']['Parameters'] for model in index['Models']}


def test_the_model_index_lists_every_config(parameters):
    assert set(parameters) == {path.stem for path in CONFIGS}


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_every_config_builds_a_model_whose_heatmaps_fit_its_codec_and_pipelines(path, parameters):
    cfg = Config.fromfile(path)
    check_config(cfg)
    model = MODELS.build(cfg.model)
    width, height = cfg.model.codec.input_size
    with torch.no_grad():
        heatmaps = model.eval().backbone(torch.zeros(1, 3, height, width))
    assert len(heatmaps) == cfg.model.backbone.num_stacks == model.head.num_stages
    assert heatmaps[-1].shape[2:] == tuple(cfg.model.codec.heatmap_size[::-1])
    assert model.head(heatmaps)[-1].shape[1] == cfg.model.backbone.num_keypoints
    assert sum(p.numel() for p in model.parameters()) == parameters[path.stem]
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        (dataset, *_) = loader.dataset.get('datasets', [loader.dataset])  # or one of a ConcatDataset
        transforms = [TRANSFORMS.build(transform) for transform in dataset.pipeline]
        (crop,) = (transform for transform in transforms if isinstance(transform, TopdownCrop))
        assert tuple(crop.input_size) == (width, height)
        assert (crop.scale_factor != (1, 1)) == (loader is cfg.train_dataloader)
        if loader is not cfg.train_dataloader:
            assert not (crop.rotate_factor or crop.flip_prob or crop.shift_factor)


@pytest.mark.parametrize(
    'text, options', [('input_size = (192, 256)\n', {}), ('', dict(input_size=[192, 256]))]
)
def test_input_size_is_one_setting(tmp_path, text, options):
    (tmp_path / 'wide.py').write_text(f"_base_ = ['hg_plugin::hg_2stack_lspet_128.py']\n{text}")
    cfg = read_config(tmp_path / 'wide.py', cfg_options=options)
    parts = parts_of(cfg, r'(model|\w+_dataloader)\b.*').values()
    assert {part['input_size'] for part in parts if 'input_size' in part} == {(192, 256)}
    assert cfg.model.codec.heatmap_size == (48, 64)
    check_config(cfg)
