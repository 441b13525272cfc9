"""Every command of README and docs names files that exist and options that its tool takes."""

import ast
import importlib
import re
import runpy
import sys
from argparse import ArgumentParser
from pathlib import Path

import pytest
import torch
from docs_commands import PAGES, ROOT, blocks, commands, write_files
from mmengine.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS

from hg_plugin.apis import train
from hg_plugin.models.stacked_hourglass import RESIDUALS
from hg_plugin.prepare.metainfo import metainfo_of, metainfo_text
from hg_plugin.prepare.synthetic import make_synthetic
from hg_plugin.training.config_check import check_config
from hg_plugin.utils.config import read_config

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
def test_imports_and_links_of_the_docs_lead_somewhere(page):
    for text in blocks(page, 'python'):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith('hg_plugin'):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names)
    for link in re.findall(r'\]\(([^)#]+)(?:#[^)]*)?\)', page.read_text()):
        if '://' not in link and not link.startswith('mailto:'):
            assert (page.parent / link).exists(), link


def test_the_parts_of_write_your_own_train_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for registry in (DATASETS, METRICS, MODELS, TRANSFORMS):
        monkeypatch.setattr(registry, '_module_dict', registry._module_dict.copy())
    monkeypatch.delitem(RESIDUALS, 'depthwise', raising=False)
    write_files(ROOT / 'docs/write_your_own.md', tmp_path)
    make_synthetic('data/mpii', num_train=4, num_val=2, seed=0, num_workers=1)
    runpy.run_path('make_csv.py')
    backbone, loader = dict(channels=8, depth=1), dict(num_workers=0, batch_size=2)
    small = dict(train_cfg=dict(max_epochs=1, val_interval=1), train_dataloader=loader, val_dataloader=loader)
    model = train('my_config.py', cfg_options={'model.backbone': backbone, **small})
    assert type(model.backbone.stem_residuals[0]).__name__ == 'DepthwiseResidual'
    outputs = [torch.zeros(1, 16, 64, 64)] * 2
    assert model.head(outputs)[0].mean() == 0.5  # by to_heatmaps of the loss
    (log,) = tmp_path.glob('work_dirs/my_config/*/*.log')
    assert 'loss_distillation' in log.read_text() and 'MeanError' in log.read_text()


def test_the_example_of_other_joints_in_the_layout_of_coco(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (text,) = (
        text for text in blocks(ROOT / 'docs/data.md', 'python') if "'data/ships/'" in text and 'Coco' in text
    )
    Path('config.py').write_text(text)
    Path('ships.py').write_text(metainfo_text(metainfo_of('ships', ['bow', 'stern', 'left', 'right'])))
    cfg = read_config('config.py')
    check_config(cfg)
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        dataset = DATASETS.build({**loader.dataset, 'lazy_init': True})
        assert dataset.metainfo['num_keypoints'] == 4 and len(dataset.pipeline.transforms) == 3


def test_every_row_of_the_reliability_page_names_a_test():
    files = []
    for cell in re.findall(r'^\|.*\| (.*) \|$', (ROOT / 'docs/reliability.md').read_text(), re.M)[1:]:
        files = re.findall(r'\]\(\.\./(tests/[^)]+)\)', cell) or files  # or 'the same' as in the row before
        tests = ''.join((ROOT / file).read_text() for file in files)
        for names in re.findall(r', `([^`]+)`$', cell):
            assert all(re.search(rf'def test_\w*{name}', tests) for name in names.split(' or ')), cell


@pytest.mark.parametrize('package', ['utils', 'compat'])
def test_the_architecture_page_names_every_file_of(package):
    (row,) = re.findall(
        rf'^\| `hg_plugin/{package}/` \|.*', (ROOT / 'docs/architecture.md').read_text(), re.M
    )
    files = {file.stem for file in (ROOT / 'hg_plugin' / package).glob('[a-z]*.py')}
    assert files == set(re.findall(r'`(\w+)`', row))
