"""``python -m hg_plugin``: a report for bugs, the configs, and the tools, wherever the plugin is installed.

python -m hg_plugin                     versions, slim or full, what is stood in for, devices
python -m hg_plugin configs             the configs that _base_ = 'hg_plugin::NAME' can name
python -m hg_plugin train CONFIG ...    tools/train.py, and so every other tool by its name
"""

import ast
import runpy
import sys

from hg_plugin.compat.mmengine import MIM
from hg_plugin.utils.report import describe


def main():
    tools = {path.stem: path for path in sorted((MIM / 'tools').glob('*.py'))}
    command, *arguments = sys.argv[1:] or ['report']
    if command == 'report':
        for heading, text in describe().items():
            print(f'{heading:36} {text}')
    elif command == 'configs':
        for path in sorted((MIM / 'configs').glob('*.py')):
            print(f'hg_plugin::{path.name:32} {ast.get_docstring(ast.parse(path.read_text()))}')
    elif command in tools:
        sys.argv = [str(tools[command]), *arguments]
        runpy.run_path(str(tools[command]), run_name='__main__')
    else:
        sys.exit(
            f'error: {command} is no command of hg_plugin; give one of report, configs, {", ".join(tools)}.'
        )


if __name__ == '__main__':
    main()
