import numpy as np
import pytest


@pytest.fixture
def people():
    """The arguments of `pckh` for 31 persons, off by up to a head; some joints are not annotated."""
    random = np.random.RandomState(0)
    gt = random.uniform(0, 500, (31, 16, 2))
    head_size = random.uniform(20, 80, 31)
    pred = gt + random.normal(0, 0.3, gt.shape) * head_size[:, None, None]
    return dict(pred=pred, gt=gt, visible=random.rand(31, 16) < 0.8, head_size=head_size)
