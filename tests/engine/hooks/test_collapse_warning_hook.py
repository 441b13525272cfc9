import logging
from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub

from hg_plugin.engine.hooks import CollapseWarningHook


@pytest.mark.parametrize('peak, interval, warns', [(0.01, 10, True), (0.4, 10, False), (0.01, 100, False)])
def test_it_warns_of_empty_heatmaps_only(peak, interval, warns, caplog):
    hub = MessageHub.get_instance(f'collapse_{peak}_{interval}')
    hook = CollapseWarningHook(interval=interval)
    runner = SimpleNamespace(message_hub=hub, logger=logging.getLogger('test'), iter=0)
    for runner.iter in range(20):
        hub.update_scalar('train/heatmap_peak', peak)
        hook.after_train_iter(runner, runner.iter)
    assert len(caplog.records) == (2 if warns else 0)
    assert all('collapsed to empty heatmaps' in record.message for record in caplog.records)
