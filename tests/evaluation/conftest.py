import numpy as np
import pytest


@pytest.fixture
def people():
    """Makes the arguments of `pckh` for N persons, off by up to a head; some joints are not annotated."""

    def make(num_persons, seed=0):
        random = np.random.RandomState(seed)
        gt = random.uniform(0, 500, (num_persons, 16, 2))
        head_size = random.uniform(20, 80, num_persons)
        pred = gt + random.normal(0, 0.3, gt.shape) * head_size[:, None, None]
        return dict(pred=pred, gt=gt, visible=random.rand(num_persons, 16) < 0.8, head_size=head_size)

    return make
