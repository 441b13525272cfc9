import json
from pathlib import Path

import pytest

from hg_plugin.inference.inputs import address_of, find_inputs, is_video, output_names
from hg_plugin.utils.errors import InputError


def test_sub_folders_and_videos_but_no_earlier_results(tmp_path):
    names = 'a.jpg b/c.PNG b/d/e.mp4 .trash/f.jpg b/._g.jpg b/notes.txt out/visualizations/a.jpg'
    for name in names.split():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = [tmp_path / name for name in ('a.jpg', 'b/c.PNG', 'b/d/e.mp4')]
    assert find_inputs(tmp_path, tmp_path / 'out') == expected
    with pytest.raises(InputError, match='is in a folder of the results'):
        find_inputs(tmp_path / 'out/visualizations', tmp_path / 'out')


def test_cameras_and_streams(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    address = 'rtsp://user:secret@host:554/live/door.sdp?x=1'
    Path('1').touch()
    inputs = find_inputs(['0', address, '1', 'http://host/'])
    assert address_of(address) == 'rtsp://host:554/live/door.sdp?x=1'
    assert inputs == ['0', address, Path('1'), 'http://host/']  # a file, where there is one
    assert [is_video(source) for source in inputs] == [True, True, False, True]
    assert [*output_names(inputs, 'out').values()] == ['camera0', 'door', '1', 'host']


def test_folders_say_what_they_leave_out(tmp_path, capsys):
    for name in 'a.avif b.jfif c.JP2 d.gif e.heic f.HEIC g.txt h.jpe'.split():
        (tmp_path / name).touch()
    assert [path.name for path in find_inputs(tmp_path)] == ['a.avif', 'b.jfif', 'c.JP2', 'd.gif', 'h.jpe']
    assert 'left out 2 .heic, 1 .txt' in capsys.readouterr().err


def test_results_of_another_input_are_not_replaced(tmp_path):
    first, second = tmp_path / 'a/1.jpg', tmp_path / 'b/1.jpg'
    (tmp_path / 'out/predictions').mkdir(parents=True)
    assert output_names([first], tmp_path / 'out') == {first: '1'}
    (tmp_path / 'out/predictions/1.json').write_text(json.dumps(dict(image=str(first), persons=[])))
    assert output_names([first], tmp_path / 'out') == {first: '1'}  # again
    assert output_names([second], tmp_path / 'out') == {second: 'b_1'}
