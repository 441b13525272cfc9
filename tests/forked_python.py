"""Run scripts in processes that are forked from one that has imported the package, which takes seconds.

python forked_python.py

Each line of stdin is JSON: argv, cwd, env and the file that takes what the script prints. The answers are
lines, too: its process id, then its exit code.
"""

import gc
import json
import os
import runpy
import sys

import hg_plugin.apis  # noqa: F401


def wait_for_script() -> list[str]:
    """Fork once for every line of stdin. Returns in the new process, with the script and its arguments."""
    for line in sys.stdin:
        request = json.loads(line)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            os.chdir(request['cwd'])
            os.environ.clear()
            os.environ.update(request['env'])
            sys.path[1:1] = filter(None, request['env'].get('PYTHONPATH', '').split(os.pathsep))
            file = os.open(request['out'], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(file, stream)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            return request['argv']
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    os._exit(0)


gc.freeze()  # collecting what is imported would take each script a second when it ends
sys.argv = wait_for_script()
if sys.argv[0] == '-c':
    sys.path[0] = ''
    exec(compile(sys.argv.pop(1), '<string>', 'exec'), dict(__name__='__main__'))
elif sys.argv[0] == '-m':
    sys.path[0] = ''
    runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)
else:
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name='__main__')
