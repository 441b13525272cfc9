"""Which checkpoint a run resumes from."""

import pytest
import torch

from hg_plugin.engine.resume.latest import PARTS, checkpoint_folder, holds_training, latest_checkpoint
from hg_plugin.utils.errors import InputError


def training(**changes):
    state = dict(optimizer={}, meta=dict(epoch=1, iter=2), message_hub=dict.fromkeys(PARTS, {}))
    return {**state, 'state_dict': dict(weight=torch.arange(10_000.0)), **changes}


@pytest.fixture
def run(tmp_path):
    """A work directory of four epochs, of which the third is the latest."""
    for name in ('epoch_1', 'epoch_2', 'epoch_3', 'epoch_10'):
        torch.save(training(), tmp_path / f'{name}.pth')
    torch.save(dict(state_dict={}), tmp_path / 'best_Mean_epoch_9.pth')
    torch.save(dict(state_dict={}), tmp_path / 'pretrained.pth')
    (tmp_path / 'last_checkpoint').write_text('epoch_3.pth')
    return tmp_path


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = dict(
    truncated=lambda path: path.write_bytes(path.read_bytes()[:-2_000]),
    empty=lambda path: path.write_bytes(b''),
    zeroed=lambda path: path.write_bytes(bytes(path.stat().st_size)),
    flipped=flip,
    weights_alone=lambda path: torch.save(dict(state_dict={}), path),
    not_finite=lambda path: torch.save(training(state_dict=dict(weight=torch.tensor([torch.nan]))), path),
)


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(run, damage):
    assert latest_checkpoint(str(run)) == str(run / 'epoch_3.pth')
    DAMAGES[damage](run / 'epoch_3.pth')
    assert latest_checkpoint(str(run)) == str(run / 'epoch_2.pth')
    DAMAGES[damage](run / 'epoch_2.pth')
    DAMAGES[damage](run / 'epoch_1.pth')
    # which may be of another run, and is the last to be tried
    assert latest_checkpoint(str(run)) == str(run / 'epoch_10.pth')
    DAMAGES[damage](run / 'epoch_10.pth')
    with pytest.raises(InputError, match='no undamaged checkpoint .*epoch_3.pth'):
        latest_checkpoint(str(run))


def test_a_checkpoint_that_is_gone_is_skipped(run):
    (run / 'epoch_3.pth').unlink()
    assert latest_checkpoint(str(run)) == str(run / 'epoch_2.pth')


@pytest.mark.parametrize('text', [b'', b'\n', b'\xff\x00\xfe' * 2000, b'none.pth', b'..'])
def test_a_damaged_pointer_means_the_newest_whole_checkpoint(run, text):
    (run / 'last_checkpoint').write_bytes(text)
    assert latest_checkpoint(str(run)) == str(run / 'epoch_10.pth')
    (run / 'last_checkpoint').unlink()
    assert latest_checkpoint(str(run)) == str(run / 'epoch_10.pth')
    for path in run.glob('epoch_*'):
        path.unlink()
    assert latest_checkpoint(str(run)) is None
    (run / 'last_checkpoint').write_bytes(text)
    with pytest.raises(InputError, match='last_checkpoint (is empty|names .*not there); give'):
        latest_checkpoint(str(run))


def test_checksums_may_be_absent(run):
    try:
        torch.serialization.set_crc32_options(False)
    except AttributeError:
        pytest.skip('this torch always writes checksums')
    try:
        torch.save(training(), run / 'epoch_3.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    assert latest_checkpoint(str(run)) == str(run / 'epoch_3.pth')


@pytest.mark.parametrize(
    'text',
    ['/elsewhere/epoch_3.pth\n', '../../epoch_3.pth', 'http://host/epoch_3.pth', r'C:\runs\epoch_3.pth'],
)
def test_the_latest_checkpoint_lies_in_the_folder_of_checkpoints(run, tmp_path, text):
    (run / 'last_checkpoint').write_text(text)
    assert latest_checkpoint(str(run)) == str(run / 'epoch_3.pth')
    out = tmp_path / 'out' / run.name
    out.mkdir(parents=True)
    torch.save(training(), out / 'epoch_3.pth')
    assert latest_checkpoint(str(run), str(tmp_path / 'out')) == str(out / 'epoch_3.pth')


def test_the_folder_is_that_of_the_hook():
    assert checkpoint_folder('/runs/a') == checkpoint_folder('/runs/a', '/runs/a') == '/runs/a'
    assert checkpoint_folder('/runs/a/', '/out') == '/out/a'


def test_weights_are_no_training():
    state = training()
    assert holds_training(state)
    for change in (
        dict(meta=dict(epoch=1)),
        dict(meta=dict(epoch='1', iter='2')),
        dict(meta=dict(epoch=-1, iter=2)),
        dict(meta=dict(epoch=1, iter=2, seed='1')),
        dict(optimizer=3),
        dict(meta=3),
        dict(message_hub=dict(log_scalars={}, runtime_info={})),
        dict(message_hub=None),
    ):
        assert not holds_training({**state, **change})
    assert not holds_training({}) and not holds_training(dict(state_dict={}))
