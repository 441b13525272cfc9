import logging
from types import SimpleNamespace

import pytest
from mmengine.config import Config

from hg_plugin.models import StackedHourglass
from hg_plugin.training.optimizer_check import check_custom_keys


@pytest.mark.parametrize(
    'key, hint', [('scores', None), ('hourglasses.0', None), ('scorse', 'scores'), ('qq', '')]
)
def test_custom_keys_without_a_parameter_are_told(caplog, key, hint):
    settings = dict(optim_wrapper=dict(paramwise_cfg=dict(custom_keys={key: dict(lr_mult=0.1)})))
    model = StackedHourglass(channels=4, depth=1)
    check_custom_keys(SimpleNamespace(model=model, cfg=Config(settings), logger=logging.getLogger()))
    assert (hint is None) == (not caplog.records)
    assert hint is None or (key in caplog.text and hint in caplog.text)
