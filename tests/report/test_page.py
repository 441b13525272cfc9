import importlib.util
import json
import re
from pathlib import Path

import pytest
from fake_run import FakeRun

from hg_plugin.apis import write_report
from hg_plugin.utils.errors import InputError

ROOT = Path(__file__).parents[2]
WARNING = 'WARNING', 'skipped steps', '1 of the last 10 is not finite <b>&'


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    """Two trainings of 4 epochs: one was resumed and has predictions, the other neither."""
    folder = tmp_path_factory.mktemp('page')
    first = FakeRun(folder / 'first', **{'train_cfg.max_epochs': 4})
    first.start(0, 50, events=[(15, *WARNING)])
    first.predict(first.start(40, 80))
    second = FakeRun(folder / 'second', **{'optim_wrapper.optimizer.lr': 0.5})
    second.start(0, 60, record=False)
    return first.folder, second.folder


def figures_of(page):
    content = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page)[1]
    return json.loads(content, parse_constant=pytest.fail)  # NaN is no JSON


@pytest.fixture(scope='module')
def single(folders):
    pytest.importorskip('plotly')
    path = write_report([folders[0]])
    assert path == str(folders[0] / 'report.html')
    return Path(path).read_text()


@pytest.fixture(scope='module')
def several(folders, tmp_path_factory):
    pytest.importorskip('plotly')
    out = tmp_path_factory.mktemp('out') / 'compare.html'
    return Path(write_report(folders, out)).read_text()


def text_of(page):
    """What a person reads, with single spaces."""
    page = re.sub(r'<(script|style).*?</\1>', ' ', page, flags=re.DOTALL)
    return re.sub(r'\s+', ' ', re.sub(r'<(?!wbr)[^>]*>', ' ', page).replace('<wbr>', ''))


def test_page_of_a_run(single, folders):
    text = text_of(single)
    for part in ('PCKh@0.5 78.00 best 78.00 at epoch 4', 'epochs 4 of 4', 'images/s 80', 'A fast GPU'):
        assert part in text
    assert 'complete' in text and '0123456789ab on main' in text
    assert re.search(r'train_cfg.max_epochs 4 \d', text)  # and the shipped value
    assert 'not finite &lt;b&gt;&amp;' in text  # text of the log is no HTML
    assert 'There are no heatmaps' in text and 'has no checkpoint' in text
    assert 'The 12 worst' in text and 'The 12 best' in text and single.count('alt="prediction"') == 24
    assert len(single) < 10e6
    titles = re.findall(r'<h3>([^<]*)', single)
    assert len(figures_of(single)) == 8 and {'Loss per stage', 'Learning rate'} <= set(titles)
    for figure in list(figures_of(single).values())[:4]:
        marks = {trace['name']: trace['x'] for trace in figure['data'] if trace.get('yaxis') == 'y2'}
        assert marks == {'resumed': [2], 'skipped steps': [0.75]}


def test_page_of_several_runs(several):
    text = text_of(several)
    assert re.search(r'optim_wrapper.optimizer.lr 0.01\d* 0.5', text)
    assert 'Mean 78.00 75.00 -3.00' in text and 'Hip – – –' in text
    assert 'second: There are no predictions' in text
    names = [trace['name'] for trace in figures_of(several)['figure0']['data']]
    assert names == ['first', 'second']
    assert 'alt="prediction"' not in several


def test_without_plotly(folders, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None if name == 'plotly' else find(name))
    with pytest.raises(InputError, match='pip install plotly'):
        write_report([folders[0]])


DRAWN = """return [...document.querySelectorAll('.plot')].map(plot =>
    plot.querySelectorAll('.trace, .boxes, .bars .point').length > 0 &&
    plot.getBoundingClientRect().width > 200)"""


def test_pages_need_no_network_and_name_what_plotly_knows(single, several):
    graph_objects = pytest.importorskip('plotly.graph_objects')
    for page in (single, several):
        own = re.sub(r'<script>.*?</script>', '', page, flags=re.DOTALL)  # Plotly names addresses
        assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', own) and '@import' not in own
        for figure in figures_of(page).values():
            graph_objects.Figure(figure)  # raises for a name or value that does not exist


@pytest.mark.slow
@pytest.mark.parametrize('width', [1280, 390])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_in_a_browser(browser, single, several, tmp_path, width, scheme):
    """No error in the console, every figure drawn, nothing wider than the screen, colours of the scheme."""
    script = browser.execute_script
    media = dict(features=[dict(name='prefers-color-scheme', value=scheme)])
    browser.execute_cdp_cmd('Emulation.setEmulatedMedia', media)
    metrics = dict(width=width, height=900, deviceScaleFactor=1, mobile=width < 600)
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', metrics)
    for number, page in enumerate((single, several)):
        path = tmp_path / f'{number}.html'
        path.write_text(page)
        browser.get(f'file://{path}')
        assert browser.get_log('browser') == []
        drawn = script(DRAWN)
        assert len(drawn) == len(figures_of(page)) and all(drawn)
        assert script('return document.documentElement.scrollWidth') <= width
        color = script('return getComputedStyle(document.body).backgroundColor')
        assert (int(re.findall(r'\d+', color)[0]) < 60) == (scheme == 'dark')
        label = script("return getComputedStyle(document.querySelector('.plot .xtick text')).fill")
        assert (int(re.findall(r'\d+', label)[0]) > 200) == (scheme == 'dark')


@pytest.mark.slow
def test_a_real_training(run, synthetic, tmp_path):
    """tools/train.py names the command, which draws heatmaps of the run's checkpoint."""
    pytest.importorskip('plotly')
    work_dir = tmp_path / 'run'
    out = run(
        *('tools/train.py', 'configs/hg_2stack_synthetic.py', '--data-root', synthetic(16, 8)),
        *('--work-dir', work_dir, '--cfg-options', 'train_cfg.max_epochs=2'),
        *('train_dataloader.num_workers=0', 'val_dataloader.num_workers=0', 'model.backbone.channels=8'),
    )
    assert f'hg_plugin report {work_dir}' in out
    assert f'The report: {work_dir}/report.html' in run('-m', 'hg_plugin', 'report', work_dir)
    page = (work_dir / 'report.html').read_text()
    assert page.count('alt="prediction"') == 8 and page.count('alt="stage ') == 16
    assert 'There are no' not in text_of(page) and 'complete' in text_of(page)
    assert 'model.backbone.channels 8 48' in text_of(page)
