"""setup.py: what an installation adds to an environment, and what a wheel holds. Nothing here needs a
network."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from email.parser import Parser
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest

import hg_plugin

ROOT = Path(__file__).parents[1]


pytestmark = pytest.mark.slow  # pip builds wheels


def run(*command, cwd, **environment):
    """Runs Python with these arguments in a folder and returns what it prints."""
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pip(*arguments, cwd):
    return run('-m', 'pip', '--disable-pip-version-check', *arguments, '--no-index', cwd=cwd)


def only(folder, pattern):
    (file,) = folder.glob(pattern)
    return file


def content(wheel):
    """The files of a wheel by name, but for the record of their hashes."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith('/RECORD')}


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy of what the repository holds, because setuptools leaves its build folders beside setup.py."""
    folder = tmp_path_factory.mktemp('source')
    for name in ('setup.py', 'README.md', 'MANIFEST.in', 'LICENSE', 'Makefile', 'pyproject.toml'):
        shutil.copy(ROOT / name, folder)
    ignore = shutil.ignore_patterns('__pycache__')
    for name in ('hg_plugin', 'hg_plugin_cli', 'configs', 'tools', 'requirements'):
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignore)
    return folder


@pytest.fixture(scope='module')
def wheel(source):
    pip('wheel', '.', '--no-deps', '--no-build-isolation', '--wheel-dir', 'wheels', cwd=source)
    return only(source / 'wheels', '*.whl')


def test_installs_nothing_else(source):
    """pip would install this package and no other into this environment, which already runs the plugin."""
    printed = pip('install', '.', '--dry-run', '--quiet', '--no-build-isolation', '--report', '-', cwd=source)
    assert [package['metadata']['name'] for package in json.loads(printed)['install']] == ['hg_plugin']


def test_version_and_console_script(wheel):
    """``hg_plugin`` is ``python -m hg_plugin``."""
    files, folder = content(wheel), f'hg_plugin-{hg_plugin.__version__}.dist-info'
    metadata = Parser().parsestr(files[f'{folder}/METADATA'].decode())
    assert (metadata['Version'], metadata['License']) == (hg_plugin.__version__, 'Apache-2.0')
    entry_points = files[f'{folder}/entry_points.txt'].decode()
    assert 'hg_plugin = hg_plugin_cli:main' in entry_points.splitlines()
    assert run('-m', 'hg_plugin', '--help', cwd=ROOT).startswith('usage: hg_plugin')


def test_wheel_holds_package_configs_and_tools(source, wheel):
    package = {
        str(file.relative_to(source)): file.read_bytes()
        for file in [*(source / 'hg_plugin').rglob('*'), *(source / 'hg_plugin_cli').glob('*.py')]
        if (file.suffix in ('.py', '.txt', '.html', '.typed') or file.parent.name == 'weights')
        and '.mim' not in file.parts
    }
    files = {
        f'hg_plugin/.mim/{file.relative_to(source)}': file.read_bytes()
        for folder in ('configs', 'tools')
        for file in (source / folder).rglob('*')
        if file.suffix in ('.py', '.sh')
    }
    assert {'hg_plugin/.mim/configs/hg_2stack_mpii.py', 'hg_plugin/.mim/tools/train.py'} <= set(files)
    found = {name: data for name, data in content(wheel).items() if '.dist-info/' not in name}
    assert found == package | files


def test_wheel_from_source_distribution_is_the_same(source, wheel):
    run('-c', 'from setuptools.build_meta import build_sdist; build_sdist("sdist")', cwd=source)
    sdist = only(source / 'sdist', '*.tar.gz')
    pip('wheel', sdist, '--no-deps', '--no-build-isolation', '--wheel-dir', 'again', cwd=source)
    assert content(only(source / 'again', '*.whl')) == content(wheel)


def test_config_of_installed_package_as_base(wheel, tmp_path):
    """``hg_plugin::hg_2stack_mpii.py`` leads to the installed file, from a folder that has nothing to do with
    it."""
    pip('install', wheel, '--no-deps', '--target', 'site', cwd=tmp_path)
    base = "_base_ = 'hg_plugin::hg_2stack_mpii.py'\n"
    (tmp_path / 'mine.py').write_text(base + 'model = dict(backbone=dict(num_stacks=3))')
    show = (
        'import hg_plugin; from mmengine.config import Config; print(hg_plugin.__file__);'
        'backbone = Config.fromfile("mine.py").model.backbone; print(backbone.type, backbone.num_stacks)'
    )
    printed = run('-c', show, cwd=tmp_path, PYTHONPATH=str(tmp_path / 'site')).splitlines()
    assert printed[-2:] == [str(tmp_path / 'site/hg_plugin/__init__.py'), 'StackedHourglass 3']


def pack(name, folder):
    """Writes the wheel of a package that is installed here."""
    distribution = metadata.distribution(name)
    tag = Parser().parsestr(distribution.read_text('WHEEL')).get_all('Tag')[-1]
    wheel = folder / f'{name.replace("-", "_")}-{distribution.version}-{tag}.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        for file in distribution.files:
            if file.parts[0] != '..' and file.suffix != '.pyc':
                archive.write(file.locate(), file)


def test_one_command_is_told_that_completes_an_empty_environment(wheel, tmp_path):
    """Beside a torch of the user's choice, which pip gives with thousands of megabytes."""
    wheels = tmp_path / 'wheels'
    wheels.mkdir()
    for requirements in ('build.txt', 'runtime.txt'):
        for line in (ROOT / 'requirements' / requirements).read_text().splitlines():
            name = line.partition('==')[0]
            if '==' in line and not (wheels / name).exists():
                pack(name, wheels)
    venv.create(tmp_path / 'venv', with_pip=True)
    (site,) = (tmp_path / 'venv/lib').glob('python*/site-packages')
    for package in Path(metadata.distribution('torch').locate_file('')).iterdir():
        if re.match('torch|functorch|nvidia|triton|cuda', package.name):
            (site / package.name).symlink_to(package)
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    environment['PATH'] = f'{tmp_path / "venv/bin"}:{os.environ["PATH"]}'
    environment.update(PIP_NO_INDEX='1', PIP_FIND_LINKS=str(wheels))

    def shell(command):
        settings = dict(shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
        done = subprocess.run(command, **settings)
        return done.returncode, done.stderr

    code, error = shell(f'pip install torch {wheel}')
    assert code == 0, error
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((64, 64, 3), np.uint8))
    infer = 'hg_plugin infer a.png --out-dir out'
    code, error = shell(infer)
    (command,) = re.findall('run: (.+)', error)
    assert code == 1 and 'torch' not in command
    for line in (command, infer):
        code, error = shell(line)
        assert code == 0, error
    assert (tmp_path / 'out/visualizations/a.jpg').is_file()
