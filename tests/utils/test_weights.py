"""The networks that the package carries: what their cards say is what the files give."""

import re

import cv2
import numpy as np
import pytest
import torch
from mmengine.runner.checkpoint import CheckpointLoader

from hg_plugin.apis import PoseEstimator
from hg_plugin.apis import test as evaluate
from hg_plugin.utils.checkpoint import read_checkpoint
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.weights import DEFAULT, config_and_checkpoint, shipped_networks


def test_every_network_has_a_config_a_card_and_at_most_five_megabytes():
    networks = shipped_networks()
    assert DEFAULT in networks
    for network in networks.values():
        assert network.config.is_file() and network.checkpoint.stat().st_size <= 5_000_000
        assert re.search(r'PCKh@0\.5 Mean \d\d\.\d', network.summary)
        weights = torch.load(network.checkpoint, weights_only=True)['state_dict']
        dtypes = {weight.dtype for name, weight in weights.items() if name.endswith('conv1.weight')}
        assert dtypes == {torch.half}


def test_a_network_of_the_package_by_name_or_without():
    network = shipped_networks()[DEFAULT]
    assert PoseEstimator().checkpoint == network.checkpoint
    with pytest.raises(InputError, match='or neither'):
        PoseEstimator(network.config)
    for name in (None, DEFAULT, f'hg_plugin::{DEFAULT}'):
        assert config_and_checkpoint(name, None) == (network.config, network.checkpoint)
    assert PoseEstimator(network.config, f'hg_plugin::{DEFAULT}', 'cpu').checkpoint == str(network.checkpoint)
    # load_from of MMEngine's own runner, and of hg_plugin train
    for read in (CheckpointLoader.load_checkpoint, read_checkpoint):
        assert read(f'hg_plugin::{DEFAULT}').keys() == torch.load(network.checkpoint).keys()
    for wrong in (lambda: read_checkpoint('hg_plugin::hg'), lambda: config_and_checkpoint('hg', None)):
        with pytest.raises(InputError, match=DEFAULT):
            wrong()


def test_hg_plugin_infer_needs_neither_config_nor_checkpoint(run, tmp_path):
    cv2.imwrite(str(tmp_path / 'a.jpg'), np.full((64, 64, 3), 127, np.uint8))
    run('-m', 'hg_plugin', 'infer', tmp_path / 'a.jpg', '--out-dir', tmp_path)
    assert (tmp_path / 'predictions/a.json').is_file() and (tmp_path / 'visualizations/a.jpg').is_file()


def test_it_knows_people_as_its_card_says(real_data, tmp_path):
    """PCKh of 80 validation persons, within what such a sample varies."""
    network = shipped_networks()[DEFAULT]
    said = float(re.search(r'PCKh@0\.5 Mean (\d\d\.\d)', network.summary)[1])
    options = {'test_dataloader.dataset.indices': 80, 'test_dataloader.num_workers': 0}
    options['test_dataloader.persistent_workers'] = False
    folders = dict(data_root=str(real_data('lspet_mpii')), work_dir=str(tmp_path))
    metrics = evaluate(network.config, str(network.checkpoint), cfg_options=options, **folders)
    assert abs(metrics['Mean'] - said) < 6
