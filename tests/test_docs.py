"""Every command of README and docs names files that exist and options that its tool takes."""

import ast
import importlib
import re
import runpy
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest
from docs_commands import PAGES, ROOT, blocks, commands
from mmengine.registry import HOOKS

EVERY = [pytest.param(line, id=f'{page.stem}: {" ".join(line)}') for page in PAGES for line in commands(page)]


class Parsed(BaseException):
    """The options are right; nothing else is to run."""


@pytest.mark.parametrize('line', EVERY)
def test_a_command_of_the_docs_is_one_that_exists(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    for word in line:
        if re.match(r'(configs|tools|benchmarks|projects|tests|docs|examples)/', word):
            assert (ROOT / word).exists(), word
    program, *arguments = line
    if program == 'make':
        targets = re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.M)
        assert not arguments or arguments[0] in targets
        return
    if program.endswith('.sh') or arguments[:2] == ['-m', 'pytest'] or arguments[0].startswith('examples/'):
        return  # the file exists, see above
    if program == 'python' and arguments[0] == '-c':
        ast.parse(arguments[1])
        return
    if program == 'hg_plugin' or arguments[:2] == ['-m', 'hg_plugin']:
        arguments = [str(ROOT / 'hg_plugin/__main__.py'), *arguments[0 if program == 'hg_plugin' else 2 :]]
    script, *arguments = arguments
    parse = ArgumentParser.parse_args

    def stop_when_parsed(self, *args, **kwargs):
        parse(self, *args, **kwargs)
        raise Parsed

    monkeypatch.setattr(ArgumentParser, 'parse_args', stop_when_parsed)
    monkeypatch.setattr(sys, 'argv', [script, *arguments])
    monkeypatch.syspath_prepend(str(Path(script).parent))
    # a benchmark that is named twice registers its hooks twice
    monkeypatch.setattr(HOOKS, '_module_dict', HOOKS._module_dict.copy())
    with pytest.raises(Parsed):
        runpy.run_path(script, run_name='__main__')


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_python_of_the_docs_imports_what_exists(page):
    for text in blocks(page, 'python'):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith('hg_plugin'):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.stem)
def test_links_of_the_docs_lead_to_files(page):
    for link in re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)', page.read_text()):
        if '://' not in link and not link.startswith('mailto:'):
            assert (page.parent / link).exists(), link
