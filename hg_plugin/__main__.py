"""Describe the installation, list the configs, and run the tools, wherever the plugin is installed.

hg_plugin env                 versions, slim or full set-up, stand-ins, devices: what a bug report needs;
                              also without env
hg_plugin configs             the configs that _base_ = 'hg_plugin::NAME' can name
hg_plugin weights             the trained networks that the package carries
hg_plugin train CONFIG ...    tools/train.py, and so every other tool by its name
hg_plugin mmpose train.py ... MMPose's own tools/train.py, with the configs and modules of this package
hg_plugin prepare lsp ...     tools/prepare_lsp.py

python -m hg_plugin does the same.
"""

import ast
import runpy
import sys
from pathlib import Path

import mmpose

from hg_plugin import __version__
from hg_plugin.compat.mmengine import MIM
from hg_plugin.utils.environment import describe
from hg_plugin.utils.weights import shipped_networks


def main():
    tools = {path.stem: path for path in sorted((MIM / 'tools').glob('*.py'))}
    command, *arguments = sys.argv[1:] or ['env']
    if '_'.join([command, *arguments[:1]]) in tools:  # prepare lsp is prepare_lsp
        command, arguments = '_'.join([command, *arguments[:1]]), arguments[1:]
    if command in tools:
        sys.argv = [str(tools[command]), *arguments]
        runpy.run_path(str(tools[command]), run_name='__main__')
    elif command == 'env':
        for heading, text in {'hg_plugin': __version__, **describe()}.items():
            print(f'{heading:36} {text}')
    elif command == 'configs':
        for path in sorted((MIM / 'configs').glob('*.py')):
            print(f'hg_plugin::{path.name:32} {ast.get_docstring(ast.parse(path.read_text()))}')
    elif command == 'weights':
        for name, network in shipped_networks().items():
            print(f'{name}\n  {network.summary}\n  config      {network.config}')
            print(f'  checkpoint  {network.checkpoint}\n  card        {network.card}')
    elif command == 'mmpose' and arguments:
        script = Path(mmpose.__file__).parent / '.mim/tools' / arguments[0]
        if not script.is_file():
            sys.exit(
                f'error: MMPose has no tools/{arguments[0]}; try train.py, test.py, misc/browse_dataset.py.'
            )
        sys.argv = [str(script), *arguments[1:]]
        runpy.run_path(str(script), run_name='__main__')
    elif command in ('-h', '--help'):
        print(f'{__doc__}\ncommands: env, configs, weights, {", ".join(tools)}')
    else:
        sys.exit(f'error: {command} is no command of hg_plugin; see hg_plugin --help.')


if __name__ == '__main__':
    main()
