"""The command line: help and mistakes are told at once, the work is done by the package."""

import functools
import subprocess
import sys

import pytest

import hg_plugin
from hg_plugin_cli import COMMANDS


@pytest.fixture
def cli(tool):
    """Runs a command line, and returns the exit code and all that it printed."""
    return functools.partial(tool, 'hg_plugin/__main__.py')


@pytest.mark.parametrize('words', [['--help'], ['--version'], ['train', '--help'], ['prepare'], []])
def test_help_needs_no_mmpose(launch, words):
    program = (
        'import sys; from hg_plugin_cli import main\n'
        'try: main()\n'
        'finally: assert not {"torch", "mmpose", "hg_plugin"} & {*sys.modules}'
    )
    assert launch(sys.executable, '-c', program, *words, stderr=subprocess.PIPE).stdout


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_has_a_help_of_its_own_name(cli, name):
    code, printed = cli(*name.split(), '--help')
    assert code == 0 and printed.startswith(f'usage: hg_plugin {name} ')
    # a sentence of what it does
    assert printed.split('\n\n')[1].rstrip().endswith('.')


def test_what_there_is(cli):
    assert cli('--version') == (0, f'hg_plugin {hg_plugin.__version__}\n')
    for words, names in (([], ['train', 'prepare']), (['prepare'], ['mpii', 'lsp'])):
        code, printed = cli(*words)
        assert code == 0 and all(f'\n    {name} ' in printed for name in names)


@pytest.mark.parametrize(
    'words, near', [('infre a.jpg', 'infer'), ('prepare lps', 'prepare lsp'), ('qqq', '--help')]
)
def test_a_wrong_command_is_refused_with_the_nearest(cli, words, near):
    code, printed = cli(*words.split())
    assert code == 2 and near in printed.splitlines()[-1]


def test_mistakes_in_arguments_are_one_line_of_usage(cli):
    assert cli('infer', 'a.jpg', '--boxes', 'a.json', '--box', '1', '2', '3', '4')[0] == 2
    code, printed = cli('infer', 'a.jpg', '--det-config', 'a.py')
    assert code == 2 and '--det-checkpoint' in printed


def test_settings_are_parsed_as_mmengine_does(cli, monkeypatch):
    given = {}
    monkeypatch.setattr('hg_plugin.training.runner.train', lambda **options: given.update(options))
    assert cli('train', 'a.py', '--resume', '--cfg-options', 'a.b=1,2', 'c=x')[0] == 0
    assert given['cfg_options'] == {'a.b': [1, 2], 'c': 'x'} and given['resume'] is True


@pytest.mark.parametrize('words, code', [(['env'], 0), (['weights'], 1)])
def test_env_works_where_mmpose_is_broken(launch, tmp_path, words, code):
    (tmp_path / 'mmpose.py').write_text('raise AttributeError("broken")')
    command = sys.executable, '-c', 'from hg_plugin_cli import main; main()', *words
    printed = launch(*command, code=code, PYTHONPATH=str(tmp_path)).stdout
    assert 'Traceback' not in printed and 'mmpose' in printed and 'numpy' in printed


@pytest.mark.parametrize(
    'words, network',
    [([], (None, None)), (['small'], ('small', None)), (['a.py', 'b.pth'], ('a.py', 'b.pth'))],
)
def test_what_is_exported(cli, monkeypatch, words, network):
    exported = []
    monkeypatch.setattr(
        'hg_plugin.deploy.export.export', lambda **given: exported.append(given) or {'peaks': 1}
    )
    assert cli('export', *words, 'out.onnx', '--int8', 'a.jpg', 'b.jpg')[0] == 0
    (given,) = exported
    assert (given['config'], given['checkpoint'], given['out']) == (*network, 'out.onnx')
    assert cli('export', 'a.py', 'b.pth', 'c', 'out.onnx')[0] == 2


@pytest.mark.parametrize('words', [['hg_2stack_nobody'], ['a.py']])
def test_a_page_needs_a_network_that_there_is(cli, words):
    code, _ = cli('serve', *words)
    assert 'hg_2stack_lspet_128' in code
