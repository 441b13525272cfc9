import pytest

from hg_plugin.utils.errors import InputError, command


@command
def fail(error):
    raise error


def test_a_mistake_is_one_sentence_also_from_a_data_loaders_worker():
    with pytest.raises(SystemExit, match='^error: a.json is wrong.$'):
        fail(InputError('a.json is wrong.'))
    with pytest.raises(SystemExit, match='^error: a.json is wrong.$'):
        fail(
            InputError(
                'Caught InputError in DataLoader worker process 0.\n'
                'Original Traceback (most recent call last):\n'
                '  File "x.py", line 1\nhg_plugin.utils.errors.InputError: a.json is wrong.\n'
            )
        )


def test_a_message_of_several_lines_is_one_paragraph():
    with pytest.raises(
        SystemExit, match='^error: The config a.py cannot be read: no module b; set PYTHONPATH.$'
    ):
        fail(InputError('The config a.py cannot be read:\n    no module b;\nset PYTHONPATH.'))


def test_other_errors_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        fail(ZeroDivisionError())


def test_ctrl_c_ends_without_a_traceback(capsys):
    with pytest.raises(SystemExit) as end:
        fail(KeyboardInterrupt())
    assert end.value.code == 130 and capsys.readouterr().err == 'interrupted\n'
