"""tools/infer.py on the command line, mostly in this process, which is quick, with a tiny random network."""

import errno
import functools
import http.server
import json
import re
import shutil
import signal
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from mmpose.apis import MMPoseInferencer
from torch.utils._pytree import tree_flatten

from hg_plugin.inference.files import infer_files
from hg_plugin.inference.inputs import output_names
from hg_plugin.inference.video import FORMATS, open_video, video_format
from hg_plugin.utils.images import Video

# of videos that OpenCV writes on this machine
VIDEO = video_format((160, 120))[0]


@pytest.fixture(scope='module')
def network(make_network):
    """The config and the checkpoint."""
    return make_network(
        'hg_2stack_mpii.py', model=dict(backbone=dict(channels=16), test_cfg=dict(flip_test=False))
    )


def draw(seed):
    noise = np.random.RandomState(seed).randint(0, 255, (12, 16, 3), np.uint8)
    return cv2.resize(noise, (160, 120), interpolation=cv2.INTER_CUBIC)


def write_video(path, num_frames, codec='mp4v'):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, (160, 120))
    for frame in range(num_frames):
        writer.write(draw(frame))
    writer.release()


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    """A folder of good images and bad, and another of other images with the same names, and videos."""
    folder = tmp_path_factory.mktemp('inputs')
    for name in ('good', 'other', 'empty'):
        (folder / name).mkdir()
    for name, number in [*((f'{number}.png', number) for number in range(5)), ('0.jpg', 0)]:
        cv2.imwrite(str(folder / f'good/{name}'), draw(number))
    (folder / 'good/cut.png').write_bytes((folder / 'good/0.png').read_bytes()[:1000])
    (folder / 'good/text.jpg').write_text('no image')
    (folder / 'good/notes.txt').write_text('not looked at')
    cv2.imwrite(str(folder / 'other/0.png'), draw(10))
    write_video(folder / 'clip.mp4', 20)
    write_video(folder / 'clip.avi', 20, 'MJPG')
    data = (folder / 'clip.avi').read_bytes()
    (folder / 'cut.avi').write_bytes(data[: len(data) // 2])
    write_video(folder / 'short.avi', 6, 'MJPG')
    (folder / 'cut.mp4').write_bytes((folder / 'clip.mp4').read_bytes()[:2000])
    return folder


@pytest.fixture
def infer(network, tool):
    """Runs the command and returns (exit code or sentence, everything it printed)."""
    # a random network finds nobody
    return lambda *arguments: tool('tools/infer.py', *network, *arguments, '--whole-image')


def written(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


def boxes_of(folder, name):
    return [person['box'] for person in persons_of(folder, name)]


def frames_of(folder, name):
    """What was written for a video."""
    return json.loads((folder / f'predictions/{name}.json').read_text())['frames']


def test_images_folder_and_video_on_the_command_line(run, network, inputs, tmp_path):
    files = inputs / 'good', inputs / 'other/0.png', inputs / 'clip.mp4'
    options = '--whole-image --batch-size 3 --flip-test --scales 0.8 1 1.2'.split()
    out = run('tools/infer.py', *network, *files, '--out-dir', tmp_path, *options, code=1)
    assert 'Traceback' not in out
    names = ['0', '1', '2', '3', '4', 'clip', 'good_0', 'other_0']
    assert written(tmp_path / 'predictions') == [f'{name}.json' for name in names]
    drawn = [f'{name}{VIDEO if name == "clip" else ".jpg"}' for name in names]
    assert written(tmp_path / 'visualizations') == drawn
    assert sorted(path.name for path in tmp_path.iterdir()) == ['predictions', 'visualizations']
    assert re.search('^.*cut.png is not an image.*\n.*text.jpg is not an image', out, re.MULTILINE)
    assert '2 of 10 files were left out' in out.splitlines()[-1]
    assert '9/9 images 0:0' in out and '20/20 frames of clip.mp4' in out
    for folder in ('good', 'other'):
        assert f'{inputs}/{folder}/0.png: its results are called {folder}_0' in out


def test_rows_on_the_command_line(infer, inputs, tmp_path):
    end, out = infer(inputs / 'good', '--out', tmp_path / 'people.jsonl', '--shard', '0/1', '--workers', '1')
    assert end == 0 and re.search('6 people in 8 images, 0 .* and 2 .*; 1 parts', out), out
    assert '8/8 images' in out and '/s, 6 people' in out
    rows = (tmp_path / 'people.jsonl/part-00000.jsonl').read_text().splitlines()
    rows = [json.loads(line) for line in rows]
    assert len(rows) == 8 and rows[0]['box'] == [0, 0, 160, 120] and len(rows[0]['keypoints']) == 16
    assert len(json.loads((tmp_path / 'people.jsonl/_run.json').read_text())['keypoint_names']) == 16
    assert infer(inputs / 'good', '--out', tmp_path / 'people.jsonl', '--smooth')[0] == 2
    assert '.parquet' in infer(inputs / 'good', '--out', tmp_path / 'people.csv')[0]


def persons_of(folder, name):
    """What was written for an image."""
    return json.loads((folder / f'predictions/{name}.json').read_text())['persons']


@pytest.mark.parametrize('name', ['good/1.png', 'clip.avi'])
def test_the_json_is_mmposes(infer, network, inputs, tmp_path, name):
    assert infer(inputs / name, '--out-dir', tmp_path / 'ours', '--mmpose-json', '--float32')[0] == 0
    config, checkpoint = map(str, network)
    inferencer = MMPoseInferencer(config, checkpoint, det_model='whole_image', device='cpu')
    list(inferencer(str(inputs / name), pred_out_dir=str(tmp_path / 'theirs')))
    file = f'{Path(name).stem}.json'
    ours, theirs = tmp_path / 'ours/predictions' / file, tmp_path / 'theirs' / file
    ours, theirs = (tree_flatten(json.loads(path.read_text())) for path in (ours, theirs))
    assert ours[0] == pytest.approx(theirs[0], abs=1e-3) and ours[1] == theirs[1]


def test_boxes_are_drawn_in_every_frame_of_a_video_that_browsers_play(infer, inputs, tmp_path):
    (tmp_path / 'boxes.json').write_text(json.dumps({'short.avi': [[0, 0, 80, 120], [80, 0, 160, 120]]}))
    options = '--boxes', tmp_path / 'boxes.json', '--kpt-thr', '-1', '--heatmaps', '--smooth'
    end, out = infer(inputs / 'short.avi', '--out-dir', tmp_path, *options)
    assert end == 0, out
    content = json.loads((tmp_path / 'predictions/short.json').read_text())
    assert content['video'] == str(inputs / 'short.avi') and content['image_size'] == [160, 120]
    frames = content['frames']
    assert [frame['frame_id'] for frame in frames] == list(range(6))
    assert all(frame['persons'][1]['box'] == [80, 0, 160, 120] for frame in frames)
    assert all([person['id'] for person in frame['persons']] == [0, 1] for frame in frames)
    sheets = [f'short/frame{frame:06d}_person{person}.jpg' for frame in range(6) for person in range(2)]
    assert written(tmp_path / 'heatmaps') == sheets
    drawn = cv2.VideoCapture(str(tmp_path / f'visualizations/short{VIDEO}'))
    source = cv2.VideoCapture(str(inputs / 'short.avi'))
    code = int(drawn.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, 'little')
    assert code in (b'VP80', b'avc1', b'h264') and drawn.get(cv2.CAP_PROP_FPS) == 10
    for _ in range(6):
        difference = np.abs(drawn.read()[1].astype(int) - source.read()[1])
        assert difference.max() > 100 and np.median(difference) < 20  # a skeleton on this frame
    assert not drawn.read()[0]


def test_boxes_and_heatmap_sheets(network, inputs, tmp_path):
    two = [[0, 0, 80, 120], [-20, 40, 100, 200]]
    boxes = {'1.png': two, '2.png': [], str(inputs / 'good/3.png'): [[5, 5, 50, 90]], 'unused.jpg': []}
    options = dict(boxes=boxes, whole_image=True, draw=False, heatmaps=True, device='cpu')
    left_out = infer_files(*network, inputs / 'good', out_dir=tmp_path, **options)
    assert [path.name for path in left_out] == ['cut.png', 'text.jpg']
    assert str(inputs / 'good/cut.png') in left_out[inputs / 'good/cut.png']
    found = [boxes_of(tmp_path, number) for number in (1, 2, 3, 4)]
    assert found == [two, [], [[5, 5, 50, 90]], [[0, 0, 160, 120]]]
    assert not (tmp_path / 'visualizations').exists()
    sheets = written(tmp_path / 'heatmaps')
    assert sheets[1:5] == ['1_person0.jpg', '1_person1.jpg', '3_person0.jpg', '4_person0.jpg']
    sheet = cv2.imread(str(tmp_path / 'heatmaps' / sheets[1]))
    assert sheet.shape == (20 + 2 * (128 + 20) + 4 + 22, 64 + 4 + 16 * (128 + 4), 3)


def test_ffmpeg_writes_mp4(tmp_path, inputs, monkeypatch):
    if not shutil.which('ffmpeg'):
        pytest.skip('ffmpeg is not on the PATH')
    monkeypatch.setattr('hg_plugin.inference.video.FORMATS', FORMATS[1:])
    video_format.cache_clear()
    like = Video(inputs / 'short.avi')
    like.size = (161, 121)
    with open_video(tmp_path / 'out', like) as write:
        for _ in range(6):
            write(np.zeros((121, 161, 3), np.uint8))
    assert sum(1 for _ in Video(tmp_path / 'out.mp4')) == 6
    video_format.cache_clear()


UNANNOTATED = 'model.test_cfg.unannotated_keypoints'


def test_unannotated_keypoints_and_low_scores(infer, inputs, tmp_path):
    options = ['--cfg-options', f'{UNANNOTATED}=[pelvis,thorax]']
    image = inputs / 'good/1.png'
    end, out = infer(image, '--out-dir', tmp_path, '--kpt-thr', '9', *options)
    assert end == 0 and re.search('0 of 14 keypoints reach 9; .*--kpt-thr', out)
    end, out = infer(image, '--out-dir', tmp_path, '--kpt-thr', '-99', *options)
    assert end == 0 and 'reach' not in out
    content = json.loads((tmp_path / 'predictions/1.json').read_text())
    assert content['unannotated_keypoints'] == ['pelvis', 'thorax']
    assert np.array(content['persons'][0]['keypoint_scores'])[[6, 7]].max() == 0


@pytest.mark.slow
def test_a_stream(infer, inputs, tmp_path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=inputs)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        end, out = infer(f'http://127.0.0.1:{server.server_port}/short.avi', '--out-dir', tmp_path)
        server.shutdown()
    assert end == 0 and len(frames_of(tmp_path, 'short')) == 6, out
    assert 'camera' in infer('7', '--out-dir', tmp_path)[0]


class Camera:
    """An endless camera; Ctrl-C is pressed at its fourth frame."""

    opened: list = []

    def __init__(self, source):
        self.opened.append(source)
        self.count = 0

    def read(self):
        self.count += 1
        if self.count == 4:
            signal.raise_signal(signal.SIGINT)
        return True, draw(self.count)

    def get(self, key):
        return {cv2.CAP_PROP_FPS: 30.0}.get(key, -1.0)

    set = release = Mock()


@pytest.mark.slow
def test_a_camera_until_ctrl_c_or_q(infer, tmp_path, monkeypatch):
    monkeypatch.setattr('hg_plugin.utils.images.cv2.VideoCapture', Camera)
    before = signal.getsignal(signal.SIGINT)
    end, out = infer('0', '--out-dir', tmp_path, '--no-draw')
    assert end == 0, out
    assert Camera.opened == [0] and signal.getsignal(signal.SIGINT) == before
    assert len(frames_of(tmp_path, 'camera0')) == 4
    shown = []
    monkeypatch.setenv('DISPLAY', ':0')
    monkeypatch.setattr(cv2, 'namedWindow', lambda *_: None)
    monkeypatch.setattr(cv2, 'imshow', lambda _, image: shown.append(image.shape))
    monkeypatch.setattr(cv2, 'waitKey', lambda milliseconds: ord('q') if len(shown) == 2 else -1)
    assert infer('0', '--out-dir', tmp_path, '--no-draw', '--show')[0] == 0
    assert shown == [(120, 160, 3)] * 2 and len(frames_of(tmp_path, 'camera0')) == 2
    monkeypatch.delenv('DISPLAY')
    monkeypatch.delenv('WAYLAND_DISPLAY', raising=False)
    monkeypatch.setattr(sys, 'platform', 'linux')
    assert 'screen' in infer('0', '--show', '--out-dir', tmp_path)[0]


def test_persons_from_a_detector(network, inputs, tmp_path):
    def detector(image):
        assert image.shape == (120, 160, 3)
        return np.array([[0, 0, 80, 120, 0.9], [80, 0, 200, 120, 0.5], [300, 0, 400, 90, 0.9]])

    images = [inputs / 'good/1.png', inputs / 'good/2.png']
    options = dict(boxes={'2.png': [[1, 2, 31, 42]]}, detector=detector, device='cpu')
    assert infer_files(*network, images, out_dir=tmp_path, **options) == {}
    assert boxes_of(tmp_path, 1) == [[0, 0, 80, 120], [80, 0, 160, 120]]
    assert [person['box_score'] for person in persons_of(tmp_path, 1)] == [0.9, 0.5]
    assert boxes_of(tmp_path, 2) == [[1, 2, 31, 42]]


def test_names_never_collide(tmp_path):
    paths = [tmp_path / path for path in ('x/a.jpg', 'y/a.jpg', 'y/a.png', 'z/y_a.jpg', 'z/b.jpg')]
    names = output_names(paths, tmp_path)
    assert len(set(names.values())) == len(paths)
    assert [names[path] for path in (paths[0], paths[1], paths[4])] == ['a', 'y_a', 'b']


IMAGE = '{i}/good/1.png'


@pytest.mark.parametrize(
    'arguments, message',
    [
        ('{i}/nothing.jpg', 'nothing.jpg does not exist'),
        ('{i}/good/text.jpg', 'text.jpg is not an image'),
        ('{i}/cut.avi', r'cut.avi .*\d+ of its 20 frames'),
        (f'{IMAGE} --out-dir {{o}}/file', 'visualizations/1.jpg cannot be written'),
        ('{i}/clip.mp4 --out-dir {o}/file', 'predictions/clip.json cannot be written'),
        ('{i}/clip.mp4 --out-dir {o}/taken', f'visualizations/clip{VIDEO} cannot be written'),
        (f'{IMAGE} --boxes {{o}}/other.json', "none of the inputs: {'0.png': "),
        ('{i}/good/0.png --boxes {o}/other.json', '0.png: Box 1, .*outside'),
    ],
)
def test_mistakes_end_with_a_sentence_and_leave_nothing(infer, inputs, tmp_path, arguments, message):
    (tmp_path / 'file').write_text('')
    (tmp_path / f'taken/visualizations/clip{VIDEO}').mkdir(parents=True)
    (tmp_path / 'other.json').write_text(json.dumps({'0.png': [[0, 0, 10, 10], [200, 0, 300, 50]]}))
    before = written(tmp_path)
    arguments = arguments.format(i=inputs, o=tmp_path).split()
    end, out = infer(*arguments, *(() if '--out-dir' in arguments else ('--out-dir', tmp_path / 'out')))
    assert re.match(f'error: .*{message}', end) and '\n' not in end
    assert 'Traceback' not in out and written(tmp_path) == before


def test_results_never_take_the_place_of_an_input(infer, inputs, tmp_path):
    (tmp_path / 'visualizations').mkdir()
    photograph, content = tmp_path / 'visualizations/0.jpg', (inputs / 'good/0.jpg').read_bytes()
    photograph.write_bytes(content)
    (tmp_path / 'link.jpg').symlink_to(photograph)
    for path in (photograph, photograph.parent, tmp_path / 'link.jpg'):
        assert 'overwrite' in infer(path, '--out-dir', tmp_path)[0]
    assert photograph.read_bytes() == content and not (tmp_path / 'predictions').exists()


def test_a_full_disk_ends_the_run(infer, inputs, tmp_path, monkeypatch):
    full = Mock(side_effect=OSError(errno.ENOSPC, 'No space left on device'))
    monkeypatch.setattr('hg_plugin.utils.files.Path.mkdir', full)
    assert 'No space left' in infer(inputs / 'good', '--out-dir', tmp_path)[0]
    full.assert_called_once()


def test_a_video_that_a_full_disk_cuts_off_is_not_kept(run, network, inputs, tmp_path):
    limited = 'import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (13000, 13000)); '
    limited += 'sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name="__main__")'
    options = inputs / 'short.avi', '--whole-image', '--out-dir', tmp_path
    out = run('-c', limited, 'tools/infer.py', *network, *options, code=1)
    assert re.search(f'^error: .*short{VIDEO} cannot be written', out, re.MULTILINE), out
    assert written(tmp_path) == []


def test_boxes_for_every_input(network, inputs, tmp_path):
    images = [inputs / f'good/{number}.png' for number in (1, 2)]

    def found(boxes):
        infer_files(*network, images, out_dir=tmp_path, boxes=boxes, draw=False, device='cpu')
        return boxes_of(tmp_path, 1), boxes_of(tmp_path, 2)

    assert found([[1, 2, 31, 42], [3, 4, 33, 44]]) == ([[1, 2, 31, 42], [3, 4, 33, 44]],) * 2
    assert found(np.array([[1, 2, 31, 42]])) == ([[1, 2, 31, 42]],) * 2
    assert found([]) == ([], [])
    left_out = infer_files(*network, images, out_dir=tmp_path, boxes=[[0.1, 0.1, 0.5, 1]], device='cpu')
    assert len(left_out) == 2 and 'shares' in [*left_out.values()][0]
