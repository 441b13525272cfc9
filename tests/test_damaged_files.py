"""Damaged files of every kind that users give: a valid result, or one clear sentence, and nothing else."""

import copy
import functools
import io
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from hg_plugin.engine.resume.latest import holds_training
from hg_plugin.mpii_format import (
    load_annotations,
    load_ground_truth,
    load_head_boxes,
    load_predictions,
    save_predictions,
)
from hg_plugin.utils.checkpoint import check_weights, read_checkpoint, weights_of
from hg_plugin.utils.errors import InputError

NUM_PERSONS = 3


def examples(quick, many):
    """Runs a test on so many examples, the same ones every time, and on many more with ``-m slow``."""
    shared = dict(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))

    def decorate(test):
        @pytest.mark.parametrize('count', [quick, pytest.param(many, marks=pytest.mark.slow)])
        @functools.wraps(test, assigned=['__name__'])
        def test_all(count, folder):
            settings(max_examples=count, **shared)(test)(folder=folder)

        del test_all.__wrapped__  # whose arguments pytest would look for
        return test_all

    return decorate


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('damaged')


BYTES = st.sampled_from([0, 1, 2, 5, 6, 9, 14, 15, 18, 127, 128, 255]) | st.integers(0, 255)
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),  # where
        st.sampled_from(['set', 'set', 'flip', 'cut', 'insert', 'delete', 'word']),
        BYTES,
    ),
    min_size=1,
    max_size=4,
)


def damage(content: bytes, edits) -> bytes:
    data = bytearray(content)
    for where, how, value in edits:
        i = int(where * len(data))
        if how == 'set':
            data[i : i + 1] = [value]
        elif how == 'flip':
            data[i : i + 1] = [value ^ 1 << value % 8]
        elif how == 'word':
            data[i : i + 4] = [value] * 4
        elif how == 'insert':
            data[i:i] = [value] * (1 + value % 8)
        elif how == 'delete':
            del data[i : i + 1 + value % 8]
        else:
            del data[i:]
    return bytes(data)


def outcome(function):
    """What it returns, or None after an InputError that is one line with the file's name."""
    try:
        return function()
    except InputError as error:
        assert str(error) and 'damaged' in str(error), error
        return None


def persons():
    joints = [[1.0 + i, 2.0] for i in range(16)]
    entry = dict(image='1.jpg', center=[50.0, 60.0], scale=0.5, joints=joints, joints_vis=[1] * 16)
    return copy.deepcopy([entry] * NUM_PERSONS)


def check_annotations(path):
    annotations = outcome(lambda: load_annotations(path))
    if annotations:
        assert annotations['joints'].shape == (len(annotations['image']), 16, 2)
        assert (np.float32(200) * annotations['scale'].astype(np.float32) >= 1).all()
        assert annotations['visible'].any(axis=1).all() or not annotations['visible'].any()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.sampled_from([-1, 0, 2, 1e-9, 1e30, 1e308, '', '1.5', '../x.jpg', '/etc/passwd', 'a\0b']),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(['image', 'x']), inner, max_size=2)
    ),
    max_leaves=8,
)
KEYS = ['image', 'center', 'scale', 'joints', 'joints_vis', 'other']


@examples(30, 2000)
@given(edits=EDITS)
def test_bytes_of_annotations(folder, edits):
    (folder / 'damaged.json').write_bytes(damage(json.dumps(persons()).encode(), edits))
    check_annotations(folder / 'damaged.json')


@examples(15, 3000)
@given(key=st.sampled_from(KEYS), value=VALUES, inside=st.integers(0, 40), position=st.integers(0, 2))
def test_values_of_annotations(folder, key, value, inside, position):
    """A value in the place of a whole entry, of one of its values, or of one of its numbers."""
    entries = persons()
    places = [(entries, position), (entries[position], key)]
    if key in ('center', 'joints', 'joints_vis'):
        places += [(entries[position][key], i) for i in range(len(entries[position][key]))]
    if key == 'joints':
        places += [(joint, i) for joint in entries[position][key] for i in (0, 1)]
    container, place = places[inside % len(places)]
    container[place] = value
    (folder / 'damaged.json').write_text(json.dumps(entries))
    check_annotations(folder / 'damaged.json')


def mat_file(compressed):
    file = io.BytesIO()
    arrays = dict(
        headboxes_src=np.stack([np.full((2, NUM_PERSONS), 10.0), np.full((2, NUM_PERSONS), 30.0)]),
        pos_gt_src=np.ones((16, 2, NUM_PERSONS), np.float32),
        jnt_missing=np.zeros((16, NUM_PERSONS), np.uint8),
        dataset_joints=np.array([['rank', 'head']], dtype=object),
    )
    savemat(file, arrays, do_compression=compressed)
    return file.getvalue()


MAT_FILES = [mat_file(compressed=False), mat_file(compressed=True)]


@examples(80, 4500)
@given(content=st.sampled_from(MAT_FILES), edits=EDITS, header=st.booleans())
def test_bytes_of_head_boxes(folder, content, edits, header):
    if header:  # types and sizes, in an array's first bytes, are what a reader relies on
        edits = [(128 / len(content) + where * 72 / len(content), how, value) for where, how, value in edits]
    (folder / 'damaged.mat').write_bytes(damage(content, edits))
    truth = outcome(lambda: load_ground_truth(folder / 'damaged.mat'))
    if truth:
        assert truth['gt'].shape[1:] == (16, 2) and (truth['head_size'] > 0).all()
    boxes = outcome(lambda: load_head_boxes(folder / 'damaged.mat'))
    assert boxes is None or boxes.ndim == 3


@examples(50, 3000)
@given(suffix=st.sampled_from(['.mat', '.npz', '.h5']), edits=EDITS)
def test_bytes_of_predictions(folder, suffix, edits):
    path = folder / f'predictions{suffix}'
    if not path.exists():
        preds = np.arange(NUM_PERSONS * 32.0).reshape(NUM_PERSONS, 16, 2)
        if suffix == '.h5':
            h5py = pytest.importorskip('h5py')
            with h5py.File(path, 'w') as file:
                file['preds'] = preds
        else:
            save_predictions(path, preds)
    damaged = folder / f'damaged{suffix}'
    damaged.write_bytes(damage(path.read_bytes(), edits))
    preds = outcome(lambda: load_predictions(damaged, NUM_PERSONS))
    assert preds is None or preds.shape == (NUM_PERSONS, 16, 2)


MODEL = torch.nn.Conv2d(2, 2, 1)


def checkpoint(legacy):
    file = io.BytesIO()
    optimizer = torch.optim.Adam(MODEL.parameters())
    content = dict(
        state_dict=MODEL.state_dict(),
        optimizer=optimizer.state_dict(),
        meta=dict(epoch=1, iter=2, cfg='model = dict()'),
        message_hub=dict(log_scalars={}, runtime_info=dict(epoch=1), resumed_keys={}),
    )
    torch.save(content, file, _use_new_zipfile_serialization=not legacy)
    return file.getvalue()


CHECKPOINTS = [checkpoint(legacy=False), checkpoint(legacy=True)]


@examples(50, 3000)
@given(content=st.sampled_from(CHECKPOINTS), edits=EDITS)
def test_bytes_of_checkpoints(folder, content, edits):
    path = folder / 'damaged.pth'
    path.write_bytes(damage(content, edits))

    def load():
        state = read_checkpoint(str(path))
        check_weights(MODEL, weights_of(state, str(path)), str(path))
        return holds_training(state)

    outcome(load)
