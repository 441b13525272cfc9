import numpy as np
import pytest
import torch
from mmpose.registry import KEYPOINT_CODECS

from hg_plugin.deploy.export import export


@pytest.mark.filterwarnings('ignore:.torch.jit:DeprecationWarning')
@pytest.mark.parametrize('decode', [False, True])
def test_torchscript(
    trained, images, heatmaps_of_torch, check_metadata, codec, decoded_by_mmpose, tmp_path, decode
):
    out = str(tmp_path / 'small.pt')
    export(*trained, out, format='torchscript', decode=decode)
    keys = 'input_size color mean std crop keypoint_names unannotated_keypoints skeleton codec'.split()
    metadata = dict.fromkeys(keys, '')
    network = torch.jit.load(out, _extra_files=metadata)
    check_metadata(metadata)
    image = images(3)
    expected, found = [heatmaps_of_torch(image)], network(torch.from_numpy(image))
    if decode:
        expected = decoded_by_mmpose(expected[0], KEYPOINT_CODECS.build(codec))
    for a, b in zip(found if decode else [found], expected):
        assert np.abs(a.numpy() - b).max() < 1e-3 * np.abs(b).max()
