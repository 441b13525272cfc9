import socket
import subprocess
import sys

import pytest

from hg_plugin.utils.errors import InputError, command


@command
def fail(error):
    raise error


FROM_A_WORKER = """Caught InputError in DataLoader worker process 0.
Original Traceback (most recent call last):
  File "x.py", line 1
hg_plugin.utils.errors.InputError: a.json is wrong.
"""


@pytest.mark.parametrize('text', ['a.json is wrong.', FROM_A_WORKER, 'a.json\n    is\nwrong.'])
def test_a_mistake_is_one_sentence_also_from_a_data_loaders_worker(text):
    with pytest.raises(SystemExit, match='^error: a.json is wrong.$'):
        fail(InputError(text))
    with pytest.raises(ZeroDivisionError):  # other errors keep their traceback
        fail(ZeroDivisionError())


SCRIPT = """
import runpy
errors = runpy.run_path('hg_plugin/utils/errors.py')
errors['command'](exec)("raise InputError('a.json is wrong.')", errors)
"""


@pytest.mark.skipif(not hasattr(socket, 'AF_UNIX'), reason='needs sockets that keep writes apart')
def test_processes_that_end_together_do_not_mix_their_lines(request):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    command = sys.executable, '-u', '-c', SCRIPT  # as torchrun runs them
    assert subprocess.run(command, stderr=theirs, cwd=request.config.rootpath).returncode == 1
    assert ours.recv(1000) == b'error: a.json is wrong.\n'


def test_ctrl_c_ends_without_a_traceback(capsys):
    with pytest.raises(SystemExit) as end:
        fail(KeyboardInterrupt())
    assert end.value.code == 130 and capsys.readouterr().err == 'interrupted\n'
