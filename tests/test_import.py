"""What importing the plugin changes; docs/architecture.md has the table."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# MMPose is imported as the plugin does it, but without the plugin: before, and so that it is the same after
SCRIPT = """
import inspect, json, logging.handlers, sys, types
sys.modules['alone'] = types.ModuleType('alone')
sys.modules['alone'].__path__ = ['hg_plugin/compat']
import alone.mmpose
alone.mmpose.import_mmpose()
import mmengine.runner, mmengine.visualization, mmengine.hooks, mmengine.optim, mmengine.fileio

def attributes():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split('.')[0] in ('mmengine', 'mmpose', 'logging') and module is not None:
            for key, value in vars(module).items():
                if not isinstance(value, types.ModuleType) and not key.startswith('__'):
                    found[f'{name}.{key}'] = value
                if inspect.isclass(value) and value.__module__ == name:
                    for attribute, member in vars(value).items():
                        found[f'{name}.{key}.{attribute}'] = member
    return found

before = attributes()
import hg_plugin
after = attributes()
print(json.dumps(sorted(name for name in before if after.get(name) is not before[name])))
"""
REPLACED = {
    'mmengine.config.config.Config._get_cfg_path',
    'mmengine.runner.checkpoint.CheckpointLoader._schemes',
    'mmengine.runner.runner.Runner.load_or_resume',
    'mmengine.runner.runner.Runner.resume',
}
FOR_NEW_NUMPY = 'mmpose.visualization.opencv_backend_visualizer.OpencvBackendVisualizer.draw_circles'


def test_importing_the_plugin_replaces_four_attributes(launch):
    out = launch(sys.executable, '-W', 'ignore', '-c', SCRIPT, stderr=subprocess.PIPE).stdout
    changed = set(json.loads(out.splitlines()[-1]))
    assert changed - {FOR_NEW_NUMPY} == REPLACED
    table = (ROOT / 'docs/architecture.md').read_text()
    for name in {*REPLACED, FOR_NEW_NUMPY}:
        assert f'`{".".join(name.split(".")[-2:])}`' in table
