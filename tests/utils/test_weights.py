"""The networks that the package carries: what their cards say is what the files give."""

import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hg_plugin.apis import PoseEstimator
from hg_plugin.apis import test as evaluate
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.weights import DEFAULT, shipped_networks

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get('HG_DATA', ROOT / '../shared/data')) / 'lspet_mpii'


def test_every_network_has_a_config_a_card_and_at_most_five_megabytes():
    networks = shipped_networks()
    assert DEFAULT in networks
    for network in networks.values():
        assert network.config.is_file() and network.checkpoint.stat().st_size <= 5_000_000
        assert re.search(r'PCKh@0\.5 Mean \d\d\.\d', network.summary)
        weights = torch.load(network.checkpoint, weights_only=True)['state_dict']
        assert all(
            weight.dtype == torch.half for name, weight in weights.items() if name.endswith('conv1.weight')
        )


def test_without_arguments_it_is_the_default_network():
    image = np.random.RandomState(0).randint(0, 256, (150, 120, 3), np.uint8)
    network = shipped_networks()[DEFAULT]
    default, named = PoseEstimator(), PoseEstimator(network.config, network.checkpoint)
    np.testing.assert_array_equal(*(each(image, whole_image=True).keypoints for each in (default, named)))
    with pytest.raises(InputError, match='or neither'):
        PoseEstimator(network.config)


def test_hg_plugin_infer_needs_neither_config_nor_checkpoint(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.jpg'), np.full((64, 64, 3), 127, np.uint8))
    command = [sys.executable, '-m', 'hg_plugin', 'infer', 'a.jpg']
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / 'outputs/predictions/a.json').is_file()
    assert (tmp_path / 'outputs/visualizations/a.jpg').is_file()


@pytest.mark.skipif(not DATA.is_dir(), reason=f'LSP extended is not at {DATA}; set HG_DATA')
def test_it_knows_people_as_its_card_says(tmp_path):
    """PCKh of 80 validation persons, within what such a sample varies."""
    network = shipped_networks()[DEFAULT]
    said = float(re.search(r'PCKh@0\.5 Mean (\d\d\.\d)', network.summary)[1])
    options = {'test_dataloader.dataset.indices': 80, 'test_dataloader.num_workers': 0}
    options['test_dataloader.persistent_workers'] = False
    metrics = evaluate(
        network.config,
        str(network.checkpoint),
        data_root=str(DATA),
        work_dir=str(tmp_path),
        cfg_options=options,
    )
    assert abs(metrics['Mean'] - said) < 6
