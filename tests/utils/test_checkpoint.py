import argparse
import os
import pickle
from pathlib import Path

import mmpose
import pytest
import torch
from mmpose.datasets.datasets.utils import parse_pose_metainfo

from hg_plugin.utils.checkpoint import check_weights, read_checkpoint, weights_of
from hg_plugin.utils.errors import InputError

METAINFO = sorted((Path(mmpose.__file__).parent / '.mim/configs/_base_/datasets').glob('*.py'))


@pytest.fixture
def refusal(tmp_path, recwarn):
    """The message that refuses a file of these bytes, or of what ``torch.save`` makes of other objects."""

    def refusal(content, **kwargs):
        path = tmp_path / 'file.pth'
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            torch.save(content, path, **kwargs)
        recwarn.clear()
        with pytest.raises(InputError) as refused:
            read_checkpoint(str(path))
        sentence = str(refused.value)
        # torch says half a page
        assert sentence.count('. ') == 0 and '\n' not in sentence and not recwarn.list
        return sentence

    return refusal


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
    'content, name',
    [
        (dict(args=argparse.Namespace()), 'argparse.Namespace'),
        (dict(meta=os.system), 'posix.system'),
        (torch.nn.Linear(2, 2), 'torch.nn.modules.linear.Linear'),
    ],
)
def test_what_could_run_code_is_named(refusal, content, name, zipped):
    sentence = refusal(content, _use_new_zipfile_serialization=zipped)
    assert name in sentence and 'trust=True' in sentence


@pytest.mark.parametrize('path', METAINFO, ids=lambda path: path.stem)
def test_metainfo_of_every_dataset_of_mmpose_comes_back(path, tmp_path):
    """Also what pickles as a call of `bytes`: an empty array, such as sigmas of onehand10k."""
    meta = parse_pose_metainfo(dict(from_file=str(path)))
    file = tmp_path / 'a.pth'
    torch.save(dict(meta=dict(dataset_meta=meta), state_dict=dict(w=torch.zeros(1))), file)
    for content in (read_checkpoint(str(file)), torch.load(file)):  # as MMEngine's runner does
        assert content['meta']['dataset_meta'].keys() == meta.keys()


def test_broken_files_do_not_ask_for_trust(refusal, tmp_path):
    torch.save(dict(a=torch.ones(300)), tmp_path / 'whole.pth')
    torch.save(dict(a=torch.ones(300)), tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    whole, old = ((tmp_path / name).read_bytes() for name in ('whole.pth', 'old.pth'))
    broken = [b'', b'<html>404</html>', b'hello there', bytes(5000), pickle.dumps(dict(a=1))]
    broken += [whole[:200], whole[: len(whole) // 2], old[:20], old[: len(old) // 2]]
    for content in broken:
        assert 'truncated' in refusal(content), content[:20]


def test_torchscript_is_named(refusal, tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), tmp_path / 'traced.pt')
    assert 'TorchScript' in refusal((tmp_path / 'traced.pt').read_bytes())
    with pytest.raises(InputError, match='TorchScript'):
        read_checkpoint(str(tmp_path / 'traced.pt'), trust=True)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / 'code.pth').write_bytes(b'\x80\x02cnowhere\nNothing\n.')
    for name, message in (('none.pth', 'No such file'), ('', 'directory'), ('code.pth', "'nowhere'")):
        with pytest.raises(InputError, match=message):
            read_checkpoint(str(tmp_path / name), trust=True)


def test_weights_go_without_the_prefix_of_a_distributed_model():
    state = {'module.a': torch.ones(1), 'b': torch.zeros(2), 'epoch': 3}
    assert weights_of(dict(state_dict=state), 'x.pth') == weights_of(state, 'x.pth')
    assert list(weights_of(state, 'x.pth')) == ['a', 'b']
    for content in ({}, dict(state_dict=[1]), dict(state_dict=dict(a=1)), dict(epoch=3)):
        with pytest.raises(InputError, match='holds no weights'):
            weights_of(content, 'x.pth')


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(weight=None), 'weight is missing'),
        (dict(other=torch.ones(1)), 'other is left over'),
        (dict(bias=torch.ones(1)), r'bias \(1,\) for \(3,\)'),
        (dict(bias=torch.full((3,), torch.nan)), 'bias is not finite'),
        (dict(bias=torch.ones(3, dtype=torch.long)), 'bias is of another type'),
        (dict(bias=torch.ones(3, device='meta')), 'bias is of another type'),
        (dict(bias=torch.ones(3).to_sparse()), 'bias is of another type'),
    ],
)
@pytest.mark.parametrize('wrap', [lambda model: model, torch.nn.DataParallel])
def test_weights_must_fit(change, message, wrap):
    model = wrap(torch.nn.Linear(2, 3))
    weights = weights_of(model.state_dict(), 'x.pth')
    check_weights(model, weights, 'x.pth')
    weights = {name: tensor for name, tensor in {**weights, **change}.items() if tensor is not None}
    with pytest.raises(InputError, match=message):
        check_weights(model, weights, 'x.pth')


def test_a_mask_of_booleans_fits():
    model = torch.nn.Linear(2, 3)
    model.register_buffer('mask', torch.ones(3, dtype=torch.bool))
    check_weights(model, model.state_dict(), 'x.pth')
    with pytest.raises(InputError, match='mask is of another type'):
        check_weights(model, model.state_dict() | dict(mask=torch.ones(3)), 'x.pth')
