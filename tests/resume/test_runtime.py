"""The runtime of the configs, with and without what keeps a training alive."""

import shutil

import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner
from toy_training import forget_runners

from hg_plugin import apis
from hg_plugin.engine import resume

OF_TRUST = tuple(getattr(resume, name) for name in resume.__all__)


@pytest.mark.parametrize('resilient', [True, False])
def test_one_line_leaves_out_all_that_is_for_trust(tmp_path, request, monkeypatch, synthetic, resilient):
    forget_runners()
    configs = shutil.copytree(request.config.rootpath / 'configs', tmp_path / 'configs')
    runtime = configs / '_base_/runtime.py'
    if not resilient:
        line = runtime.read_text().replace("['resilient.py']", "['mmpose::_base_/default_runtime.py']")
        runtime.write_text(line)
    runners, stock = [], Runner.train
    monkeypatch.setattr(Runner, 'train', lambda runner: runners.append(runner) or stock(runner))
    options = dict(train_cfg=dict(max_epochs=1), model=dict(backbone=dict(channels=4, depth=1)))
    options['train_dataloader'] = options['val_dataloader'] = dict(batch_size=2, num_workers=0)
    folders = dict(work_dir=str(tmp_path / 'run'), data_root=str(synthetic(2, 2)))
    apis.train(configs / 'hg_2stack_synthetic.py', cfg_options=options, **folders)
    (runner,) = runners
    assert len(runner.hooks) <= 13
    assert sum(isinstance(hook, OF_TRUST) for hook in runner.hooks) == (4 if resilient else 0)
    (saver,) = (hook for hook in runner.hooks if isinstance(hook, CheckpointHook))
    assert (type(saver) is CheckpointHook) == (not resilient)
    assert (tmp_path / 'run/epoch_1.pth').exists() and list((tmp_path / 'run').glob('best_Mean_*.pth'))


def test_no_shipped_config_has_more_than_13_hooks(request):
    for path in (request.config.rootpath / 'configs').glob('*.py'):
        cfg = Config.fromfile(path)
        # MMEngine adds its own
        hooks = {'runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint'}
        assert len(hooks | cfg.default_hooks.keys()) + len(cfg.custom_hooks) <= 13
