"""The page of hg_plugin serve; the slow tests open it in a headless Chromium."""

import asyncio
import importlib.util
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import AsyncMock

import cv2
import numpy as np
import pytest

from hg_plugin.inference.files import infer_files
from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.inference.serve import KEEP_SECONDS, OwnPagesOnly, _delete_old, answer, serve
from hg_plugin.utils.errors import InputError

ROOT = Path(__file__).parents[2]
BOXES = [[20, 10, 150, 180], [60, 20, 220, 190]]


@pytest.fixture(scope='module')
def estimator():
    return PoseEstimator(device='cpu')


@pytest.fixture(scope='module')
def files(tmp_path_factory):
    """A folder of a photo and of files that are none or too large."""
    folder = tmp_path_factory.mktemp('photos')
    pixels = np.random.default_rng(0).integers(0, 256, (10, 12, 3), np.uint8)
    cv2.imwrite(str(folder / 'photo.png'), cv2.resize(pixels, (800, 400)))
    (folder / 'text.jpg').write_text('no image')
    cv2.imwrite(str(folder / 'wide.png'), np.zeros((2100, 2100), np.uint8))
    size = struct.pack('>II', 16000, 12000)  # above Pillow's own limit
    (folder / 'bomb.png').write_bytes(b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR' + size + b'\1\0\0\0\0' + bytes(4))
    (folder / 'heavy.png').write_bytes((folder / 'photo.png').read_bytes() + bytes(2**21))
    return folder


def test_an_answer_has_the_json_of_infer(estimator, files, tmp_path):
    found = answer(estimator, str(files / 'photo.png'), BOXES)
    infer_files(estimator, None, files / 'photo.png', out_dir=tmp_path, boxes=BOXES, draw=False)
    written = json.loads((tmp_path / 'predictions/photo.json').read_text())
    assert json.loads(found.json) == dict(written, image='photo.png')
    assert found.drawn.shape == (400, 800, 3)
    assert [caption for _, caption in found.stacks][1:3] == ['1: stage 1', '2: stage 0']
    assert len(found.sheets) == 2
    assert 'of 28 keypoints' in found.text and 'pelvis and thorax' in found.text


@pytest.mark.slow
def test_a_turned_photo_is_turned_before_its_boxes_count(estimator, files, tmp_path):
    turned = cv2.rotate(cv2.imread(str(files / 'photo.png')), cv2.ROTATE_90_CLOCKWISE)
    cv2.imwrite(str(tmp_path / 'turned.png'), turned)
    box = [[10, 30, 180, 230]]
    expected = answer(estimator, str(tmp_path / 'turned.png'), box)
    found = answer(estimator, str(files / 'photo.png'), box, quarter_turns=1)
    assert found.json == expected.json.replace('turned.png', 'photo.png')


@pytest.mark.parametrize(
    'name, sentence',
    [
        ('text.jpg', 'text.jpg is not an image'),
        ('bomb.png', 'too large for Pillow'),
        ('wide.png', '2100x2100 pixels'),
        ('heavy.png', '--max-mb'),
    ],
)
def test_a_bad_file_is_one_sentence(estimator, files, name, sentence):
    found = answer(estimator, str(files / name), [], max_megabytes=1, max_megapixels=4)
    assert sentence in found.text and found.json is None and found.drawn is None


def test_that_nobody_was_found_is_said(estimator, tmp_path):
    cv2.imwrite(str(tmp_path / 'gray.png'), np.full((100, 80, 3), 120, np.uint8))
    text = answer(estimator, str(tmp_path / 'gray.png'), []).text
    assert text == 'No person was found. Drag a box around each person.'


@pytest.mark.parametrize(
    'host, origin, status',
    [
        ('127.0.0.1:7860', None, 200),
        ('localhost:7860', 'http://localhost:7860', 200),
        ('127.0.0.1:7860', 'http://site.example', 403),
        ('127.0.0.1:7860', 'null', 403),
        ('site.example:7860', None, 403),
        ('127.0.0.1:80', None, 403),
        (None, None, 403),
    ],
)
def test_pages_of_other_sites_get_no_answer(host, origin, status):
    async def app(scope, receive, send):
        await send(dict(type='http.response.start', status=200, headers=[(b'a', b'b')]))

    send = AsyncMock()
    headers = [(name, text.encode()) for name, text in ((b'host', host), (b'origin', origin)) if text]
    asyncio.run(OwnPagesOnly(app, 7860)(dict(type='http', headers=headers), None, send))
    start = send.call_args_list[0].args[0]
    assert start['status'] == status and {*OwnPagesOnly.HEADERS} <= {*start['headers']}


def test_old_uploads_are_deleted(tmp_path):
    for name, age in (('old', KEEP_SECONDS + 60), ('new', 0)):
        (tmp_path / 'upload').mkdir(exist_ok=True)
        (tmp_path / 'upload' / name).touch()
        os.utime(tmp_path / 'upload' / name, (time.time() - age,) * 2)
    _delete_old(tmp_path)
    assert [path.name for path in (tmp_path / 'upload').iterdir()] == ['new']


def test_without_gradio(estimator, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(InputError, match='pip install gradio gradio_image_annotation'):
        serve(estimator)


def wait_until(condition, seconds=90):
    """Returns what it gives as soon as that is true."""
    deadline = time.time() + seconds
    while not (found := condition()):
        assert time.time() < deadline
        time.sleep(0.3)
    return found


@pytest.fixture(scope='module')
def server(tmp_path_factory):
    for package in ('gradio', 'gradio_image_annotation'):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f'{package} is not installed')
    with socket.create_server(('127.0.0.1', 0)) as listener:
        port = listener.getsockname()[1]
    folder = tmp_path_factory.mktemp('server')
    options = '--port', port, '--max-mb', 1, '--max-megapixels', 4
    with (folder / 'log').open('w') as log:
        process = subprocess.Popen(
            [sys.executable, '-m', 'hg_plugin', 'serve', *map(str, options)],
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'TMPDIR': str(folder), 'PYTHONPATH': str(ROOT)},
        )
    wait_until(lambda: process.poll() is not None or 'Open http' in (folder / 'log').read_text(), 200)
    yield process, port, folder
    process.kill()
    process.wait()


@pytest.mark.slow
def test_a_port_in_use(server, estimator, monkeypatch):
    monkeypatch.setattr('os.environ', dict(os.environ))
    with pytest.raises(InputError, match=f'Port {server[1]} .*--port'):
        serve(estimator, port=server[1])


@pytest.mark.slow
@pytest.mark.parametrize('width, height', [(1280, 900), (390, 844)])
def test_boxes_are_dragged_and_results_shown(server, browser, files, tmp_path, width, height):
    from selenium.webdriver.common.action_chains import ActionChains

    def elements(place):
        return browser.find_elements('css selector', place)

    size = dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
    download = dict(behavior='allow', downloadPath=str(tmp_path))
    browser.execute_cdp_cmd('Browser.setDownloadBehavior', download)
    browser.get(f'http://127.0.0.1:{server[1]}')
    wait_until(lambda: elements('#photo input[type=file]'))[0].send_keys(str(files / 'photo.png'))
    canvas = wait_until(lambda: elements('#photo canvas'))[0]
    time.sleep(2)  # until it is drawn
    width, height = canvas.size['width'], canvas.size['height']
    boxes = [(0.1, 0.1, 0.5, 0.9), (0.4, 0.05, 0.9, 0.95)]  # in shares of the photo
    for left, top, right, bottom in boxes:
        start = round((left - 0.5) * width), round((top - 0.5) * height)
        half = round((right - left) * width / 2), round((bottom - top) * height / 2)
        chain = ActionChains(browser).move_to_element_with_offset(canvas, *start).click_and_hold()
        chain.move_by_offset(*half).move_by_offset(*half).release().perform()
        time.sleep(0.5)
    elements('#find')[0].click()
    wait_until(lambda: '2 persons' in elements('#status')[0].text)
    wait_until(lambda: elements('#drawn img') and len(elements('#stacks img')) == 4)
    loaded = 'return [...document.images].every(image => image.naturalWidth > 0)'
    wait_until(lambda: browser.execute_script(loaded))
    assert browser.execute_script('return document.documentElement.scrollWidth <= window.innerWidth')
    elements('#json')[0].click()
    wait_until((tmp_path / 'photo.json').exists)
    persons = json.loads((tmp_path / 'photo.json').read_text())['persons']
    found = np.array([person['box'] for person in persons]) / [800, 400, 800, 400]
    np.testing.assert_allclose(found, boxes, atol=0.03)
    assert not [entry for entry in browser.get_log('browser') if entry['level'] == 'SEVERE']
    messages = [json.loads(entry['message'])['message'] for entry in browser.get_log('performance')]
    urls = [
        each['params']['request']['url'] for each in messages if each['method'] == 'Network.requestWillBeSent'
    ]
    own = f'http://127.0.0.1:{server[1]}', 'data:', 'blob:', 'chrome:'
    assert urls and all(url.startswith(own) for url in urls)


@pytest.mark.slow
def test_ctrl_c_ends_it_quietly_and_leaves_nothing(server):
    process, port, folder = server
    assert len(list(folder.glob('hg_plugin_serve_*'))) == 1
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    text = f'Open http://127.0.0.1:{port} in a browser of this machine. Ctrl-C ends it.\n'
    assert (folder / 'log').read_text() == text
    assert not list(folder.glob('hg_plugin_serve_*'))
