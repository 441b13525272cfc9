import numpy as np
import pytest
import torch
from mmpose.codecs.utils import get_heatmap_maximum

from hg_plugin.utils.heatmaps import heatmap_peaks


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_peaks_are_mmposes(dtype):
    heatmaps = torch.randn(6, 4, 3, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    heatmaps[0] = 0
    heatmaps[1, 0] = -heatmaps[1, 0].abs()
    heatmaps[2, 0, 2, 4] = heatmaps[2, 1, 0, 1] = 9
    heatmaps[3] = heatmaps[3].round()  # several maxima
    maxima, pixels = heatmap_peaks(heatmaps)
    assert pixels[2, :2].tolist() == [[4, 2], [1, 0]] and pixels[0, 0].tolist() == [-1, -1]
    for person, person_maxima, person_pixels in zip(heatmaps.float().numpy(), maxima, pixels):
        expected_pixels, expected_maxima = get_heatmap_maximum(person)
        assert np.array_equal(person_pixels, expected_pixels)
        assert np.array_equal(person_maxima, expected_maxima)
