"""List the configs that _base_ = 'hg_plugin::NAME' can name."""

import ast

from . import PACKAGE


def run(args):
    for path in sorted((PACKAGE / '.mim/configs').glob('*.py')):
        print(f'hg_plugin::{path.name:32} {ast.get_docstring(ast.parse(path.read_bytes()))}')
