import pytest
import torch
from exported import CODEC, SIZE, stock_pipeline

from hg_plugin.inference.pose_estimator import PoseEstimator


@pytest.fixture
def onnx(onnx_export):
    return pytest.importorskip('onnx')


@pytest.fixture(scope='session')
def trained(make_network):
    """Config and checkpoint of a small network, with MMPose's transforms."""
    parts = {'model.codec': CODEC, 'model.backbone': dict(channels=16, depth=1)}
    parts['test_dataloader.dataset.pipeline'] = stock_pipeline(SIZE)
    return make_network('hg_2stack_mpii.py', **parts)


@pytest.fixture(scope='session')
def heatmaps_of_torch(trained):
    """Computes the small network's last heatmaps."""

    @torch.no_grad()
    def heatmaps_of_torch(image):
        model = PoseEstimator(*trained, device='cpu').model
        return model.head.forward(model.backbone(torch.from_numpy(image)))[-1].numpy()

    return heatmaps_of_torch
