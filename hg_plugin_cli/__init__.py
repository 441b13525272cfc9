"""The command line ``hg_plugin``, which is also behind the scripts of tools/.

It lies beside the package, because ``import hg_plugin`` imports MMPose, which takes seconds: help, versions
and mistakes in arguments come before that. A command is a module here with a docstring, ``add_arguments`` and
``run``, which imports what it needs; ``prepare mpii`` is ``prepare_mpii``. ``prepare_export`` is several.
"""

import argparse
import difflib
import functools
import importlib
import importlib.util
import re
import sys
from pathlib import Path

from . import prepare_export
from .arguments import HelpFormatter

PACKAGE = Path(importlib.util.find_spec('hg_plugin').origin).parent
COMMANDS = [
    *('train', 'finetune', 'test', 'infer', 'serve', 'browse', 'check', 'report', 'export', 'eval_pckh'),
    *('average_checkpoints', 'convert_checkpoint', 'prepare mpii', 'prepare lsp', 'make_crops'),
    *(f'prepare {kind}' for kind in prepare_export.TOOLS),
    *('make_synthetic', 'env', 'configs', 'weights', 'mmpose'),
]
# commands that start with one word
GROUPS = dict(prepare='make annotation files of a dataset')
# these run although the package cannot be imported
LIGHT = ('env', 'configs')


def main(*command: str) -> None:
    """Run the command of ``sys.argv``, or the given one with the arguments of ``sys.argv``."""
    words = [*command, *sys.argv[1:]]
    parser = make_parser()
    refuse_typo(parser, words)
    args = parser.parse_args(words)
    name, run = vars(args).pop('command'), vars(args).pop('run')
    if name in LIGHT or name not in COMMANDS:
        return run(args)
    if sys.stderr.isatty():
        print('hg_plugin: importing MMPose ...', file=sys.stderr)
    try:
        from hg_plugin.utils.errors import command as told
    except ImportError as error:  # which names the broken package
        sys.exit(f'error: {error}')
    try:
        told(run)(args)
    except argparse.ArgumentError as error:
        parser.error(f'{name}: {error}')


def make_parser() -> argparse.ArgumentParser:
    version = re.search(r"^__version__ = '(.+)'$", (PACKAGE / '__init__.py').read_text('utf-8'), re.MULTILINE)
    parser = argparse.ArgumentParser('hg_plugin', description='Stacked hourglass networks for MMPose.')
    parser.add_argument('--version', action='version', version=f'hg_plugin {version[1]}')
    parsers = {'': _make_group(parser)}
    for name in COMMANDS:
        group, _, word = name.rpartition(' ')
        if word in prepare_export.TOOLS:
            module, text = prepare_export, prepare_export.describe(word)
            run = functools.partial(module.run, word)
        else:
            module = importlib.import_module(f'.{name.replace(" ", "_")}', __name__)
            text, run = module.__doc__, module.run
        if group not in parsers:
            parsers[group] = _make_group(parsers[''].add_parser(group, help=GROUPS[group]))
        own = parsers[group].add_parser(
            word,
            help=text.partition('\n')[0].rstrip('.'),
            description=text,
            formatter_class=HelpFormatter,
        )
        getattr(module, 'add_arguments', lambda parser: None)(own)
        own.set_defaults(command=name, run=run)
    return parser


def _make_group(parser: argparse.ArgumentParser):
    """Let a parser take commands, and print them where none is given."""
    parser.set_defaults(command='', run=lambda args: parser.print_help())
    return parser.add_subparsers(title='commands', metavar='COMMAND')


def refuse_typo(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """Name the command that is nearest to a wrong one."""
    for depth, word in enumerate(words[:2]):
        known = [name.split() for name in COMMANDS]
        choices = [name[depth] for name in known if name[:depth] == words[:depth] and name[depth:]]
        if choices and word not in choices and not word.startswith('-'):
            near = difflib.get_close_matches(word, choices, n=1)
            wrong, before = ' '.join(words[: depth + 1]), ' '.join(words[:depth])
            hint = f'did you mean {" ".join([before, *near]).strip()}?' if near else 'see hg_plugin --help.'
            parser.error(f'{wrong} is no command of hg_plugin; {hint}')
