"""Rows of very many images, with a stub in place of the network."""

import gzip
import json
import multiprocessing
import os
import select
import shutil
import signal
import subprocess
import sys
import tarfile
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from hg_plugin.inference import many
from hg_plugin.inference.image_parts import division
from hg_plugin.inference.pose_estimator import PoseEstimator
from hg_plugin.inference.results import Poses
from hg_plugin.utils.errors import InputError

ROOT = Path(__file__).parents[2]


class Stub:
    """Finds as many persons as the image's first pixel says, at its brightness; ends Python at an image."""

    cfg, backend, bfloat16 = SimpleNamespace(pretty_text=''), 'torch', False

    def __init__(self, checkpoint, killed_at=None):
        self.checkpoint, self.killed_at, self.count = checkpoint, killed_at, 0
        checkpoint.write_text('weights')

    def __call__(self, image, boxes):
        return self.poses(image, len(boxes))

    def poses(self, image, number):
        keypoints = np.full((number, 2, 2), image.mean(), np.float32)
        boxes = np.ones((number, 4), np.float32)
        return Poses(keypoints, keypoints[..., 0], boxes, boxes[:, 0], image, image.shape[1::-1])

    def stream(self, images, **_):
        images = iter(images)
        while batch := [*islice(images, 3)]:  # as a network does
            for image, _ in batch:
                self.count += 1
                if self.count == self.killed_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                yield self.poses(image, int(image[0, 0, 0]))


@pytest.fixture(scope='module')
def images():
    """A folder with eleven images of one color, ten times their number, and a first pixel of that modulo
    three; the fifth is damaged. Two tars have seven more, with JSON files beside them."""
    return Path(__file__).with_name('many_images')


@pytest.fixture
def infer(images, tmp_path):
    """Runs with files of four images, and returns the rows, after all shares of a division."""

    def infer(killed_at=None, shards=('0/1',), out='people.jsonl', inputs=images, **options):
        options = dict(images_per_part=4, workers=0) | options
        for shard in shards:
            stub = Stub(tmp_path / 'network.pth', killed_at)
            counts = many.infer_many(stub, inputs, tmp_path / out, shard=shard, **options)
            infer.counts = counts
        lines = [path.read_text() for path in sorted((tmp_path / out).glob('*.jsonl'))]
        return [json.loads(line) for text in lines for line in text.splitlines()]

    return infer


def test_a_row_a_person(infer, images):
    rows = infer()
    assert all(list(row) == list(many.COLUMNS) for row in rows)
    names = [f'{images}/{number:02d}.png' for number in range(11)]
    names += [f'{images}/a.tar/sample/{number}.png' for number in range(11, 16)]
    names += [f'{images}/b.tar.gz/sample/{number}.png' for number in (16, 17)]
    assert list(dict.fromkeys(row['image'] for row in rows)) == names
    two = [row for row in rows if row['image'] == names[5]]
    assert [row['person'] for row in two] == [0, 1] and two[0]['keypoints'] == [[49.4, 49.4]] * 2
    assert (two[0]['width'], two[0]['height'], two[0]['reason']) == (10, 8, None)
    (nobody,), (damaged,) = ([row for row in rows if row['image'] == names[number]] for number in (3, 4))
    assert nobody['width'] == 10 and 'no person' in nobody['reason'] and nobody['keypoints'] is None
    assert damaged['width'] is None and 'truncated' in damaged['reason']
    assert infer.counts == dict(parts=5, before=0, images=18, people=17, empty=6, unread=1)


def test_processes_decode_in_order(infer):
    assert infer(workers=2) == infer(out='other.jsonl')


@pytest.mark.parametrize('count', [1, 2, 3])
def test_killed_and_divided_it_gives_the_same_rows(infer, tmp_path, count):
    shards = [f'{index}/{count}' for index in range(count)]
    fork = multiprocessing.get_context('fork')
    for killed_at in (1, 3, 4, 5, 2, 1):
        run = fork.Process(target=infer, args=(killed_at, shards, 'killed.jsonl'))
        run.start()
        run.join()
        assert run.exitcode == -signal.SIGKILL
    assert infer(shards=shards, out='killed.jsonl') == infer(out='whole.jsonl')
    files = [
        {path.name: path.read_bytes() for path in tmp_path.glob(f'{name}.jsonl/*')}
        for name in ('killed', 'whole')
    ]
    assert files[0] == files[1]


def test_workers_end_with_a_run_that_is_killed(infer, tmp_path):
    (tmp_path / 'large').mkdir()
    for number in range(12):
        cv2.imwrite(str(tmp_path / f'large/{number}.png'), np.ones((300, 300, 3), np.uint8))
    end, own = os.pipe()
    options = dict(inputs=tmp_path / 'large', workers=2)
    run = multiprocessing.get_context('fork').Process(target=infer, args=(2,), kwargs=options)
    run.start()
    os.close(own)
    run.join()
    assert run.exitcode == -signal.SIGKILL
    assert select.select([end], [], [], 30)[0]  # the last process with the other end of the pipe is gone
    os.close(end)


def test_a_run_with_other_images_or_options_is_refused(infer, images, monkeypatch):
    rows = infer()
    assert infer() == rows and infer.counts['before'] == 5 and infer.counts['images'] == 0
    found = dict(detector=lambda image: np.zeros((0, 5)))
    for changed in (dict(flip_test=True), dict(inputs=images / 'a.tar'), dict(images_per_part=5), found):
        with pytest.raises(InputError, match='another --out'):
            infer(**changed)
    monkeypatch.setattr(Stub, 'bfloat16', True)
    with pytest.raises(InputError, match='other bfloat16'):
        infer()
    monkeypatch.undo()
    assert infer() == rows


def test_a_damaged_tar_is_rows_with_reasons(infer, images, tmp_path):
    data = (images / 'a.tar').read_bytes()
    (tmp_path / 'cut.tar').write_bytes(data[: data.index(b'sample/13.png') + 600])
    (tmp_path / 'cut.tgz').write_bytes(gzip.compress(data)[:-400])
    (tmp_path / 'text.tar').write_text('no tar')
    with tarfile.open(tmp_path / 'empty.tar', 'w'):
        pass
    (tmp_path / 'list.txt').write_text('\n'.join(str(path) for path in sorted(tmp_path.glob('*.t[ag]*'))))
    rows = infer(inputs=tmp_path / 'list.txt', workers=2)
    reasons = {row['image'].removeprefix(f'{tmp_path}/'): row['reason'] for row in rows}
    assert reasons['cut.tar/sample/11.png'] is None and reasons['cut.tar/sample/13.png']
    assert reasons['cut.tar'] and reasons['cut.tgz'] and reasons['text.tar']
    assert 'no images' in reasons['empty.tar']
    missing = tmp_path / 'missing.txt'
    missing.write_text(f'{tmp_path}/gone.tar\n{tmp_path}/gone.jpg\n')
    assert all('No such file' in row['reason'] for row in infer(inputs=missing, out='missing.jsonl'))


def test_parquet(infer, tmp_path):
    pytest.importorskip('pyarrow')
    import pyarrow.parquet

    expected = infer()
    infer(out='people.parquet')
    rows = pyarrow.parquet.read_table(tmp_path / 'people.parquet').to_pylist()
    for row, same in zip(rows, expected, strict=True):
        assert row['image'] == same['image'] and row['reason'] == same['reason']
        if row['person'] is not None:
            np.testing.assert_allclose(row['keypoints'], same['keypoints'])


def test_mistakes(infer, images, tmp_path, monkeypatch):
    (tmp_path / 'empty.txt').write_text('\n')
    for wrong, word in (
        (dict(out='people.csv'), 'parquet'),
        (dict(inputs=tmp_path / 'gone'), 'does not exist'),
        (dict(inputs=tmp_path / 'empty.txt'), 'no images'),
    ):
        with pytest.raises(InputError, match=word):
            infer(**wrong)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(InputError, match='pip install pyarrow'):
        infer(out='people.parquet')


def test_a_share_by_rank(monkeypatch):
    for name in ('RANK', 'WORLD_SIZE', 'SLURM_PROCID', 'SLURM_STEP_NUM_TASKS'):
        monkeypatch.delenv(name, raising=False)
    assert division() == (0, 1) and division('2/3') == (2, 3)
    monkeypatch.setenv('SLURM_PROCID', '3')
    assert division() == (0, 1)  # a batch script, of which there is one
    monkeypatch.setenv('SLURM_STEP_NUM_TASKS', '8')
    assert division() == (3, 8)
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setenv('WORLD_SIZE', '2')
    assert division() == (1, 2) and division('0/9') == (0, 9)
    for shard in ('3/3', '1', '-1/2', '/2'):
        with pytest.raises(InputError, match='I/N'):
            division(shard)


@pytest.mark.slow
def test_rows_of_ray_data_are_those_of_one_process(real_data, tmp_path):
    pytest.importorskip('ray.data')
    pandas = pytest.importorskip('pandas')
    images, outs = tmp_path / 'images', [tmp_path / name for name in ('ray.parquet', 'one.parquet')]
    images.mkdir()
    for path in sorted((real_data('lspet_mpii') / 'images').iterdir())[:3]:
        shutil.copy(path, images)
    (images / 'damaged.jpg').write_bytes(b'no image')
    command = [sys.executable, ROOT / 'examples/ray_data.py', images, outs[0]]
    subprocess.run(command, check=True, timeout=400, env={**os.environ, 'PYTHONPATH': str(ROOT)})
    many.infer_many(PoseEstimator(device='cpu'), images, outs[1])
    rows = [pandas.read_parquet(out).sort_values(['image', 'person'], ignore_index=True) for out in outs]
    for name in ('image', 'person', 'reason'):
        pandas.testing.assert_series_equal(rows[0][name], rows[1][name], check_dtype=False)
    for ours, theirs in zip(*(frame['keypoints'].dropna() for frame in rows)):
        np.testing.assert_allclose(np.stack(ours), np.stack(theirs), atol=0.1)
