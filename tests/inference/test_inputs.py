from pathlib import Path

import pytest

from hg_plugin.inference.inputs import find_inputs, is_video, output_names
from hg_plugin.utils.errors import InputError


def test_sub_folders_and_videos_but_no_earlier_results(tmp_path):
    names = 'a.jpg b/c.PNG b/d/e.mp4 .trash/f.jpg b/._g.jpg b/h.ts b/notes.txt out/visualizations/a.jpg'
    for name in names.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = [tmp_path / name for name in ('a.jpg', 'b/c.PNG', 'b/d/e.mp4')]
    assert find_inputs(tmp_path, tmp_path / 'out') == expected
    assert find_inputs(tmp_path, tmp_path / 'out', videos=False) == expected[:2]
    assert find_inputs([tmp_path, tmp_path / 'b/h.ts'], tmp_path / 'out')[3:] == [tmp_path / 'b/h.ts']
    with pytest.raises(InputError, match='is in a folder of the results'):
        find_inputs(tmp_path / 'out/visualizations', tmp_path / 'out')


def test_cameras_and_streams(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    address = 'rtsp://user:secret@host:554/live/door.sdp?x=1'
    Path('1').touch()
    inputs = find_inputs(['0', address, '1', 'http://host/'])
    assert inputs == ['0', address, Path('1'), 'http://host/']  # a file, where there is one
    assert [is_video(source) for source in inputs] == [True, True, False, True]
    assert [*output_names(inputs).values()] == ['camera0', 'door', '1', 'host']
