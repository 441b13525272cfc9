import contextlib
import functools
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from scipy.io import loadmat, savemat
from toy_training import forget_runners

from hg_plugin.compat.torch import torch_before
from hg_plugin.prepare.synthetic import make_synthetic

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get('HG_DATA', ROOT / '../shared/data')).resolve()


@pytest.fixture(autouse=True)
def default_scope():
    """As every config sets it."""
    init_default_scope('mmpose')


CUDA = pytest.param(
    'cuda',
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='torch finds no GPU')],
)


@pytest.fixture(params=[CUDA, 'cpu'])
def device(request):
    """Where a test of GPUs runs: there, and on a CPU, so that the test itself is tried on every machine."""
    return request.param


@pytest.fixture(scope='session')
def real_data():
    """Gives a folder of the real data by name, or skips where it is absent."""

    def folder(name):
        if not (DATA / name).is_dir():
            pytest.skip(f'{name} is not in {DATA}; set HG_DATA to where it is')
        return DATA / name

    return folder


@pytest.fixture
def sample_set(real_data, tmp_path):
    """A copy of five real MPII persons, to change."""
    return shutil.copytree(real_data('mpii_sample'), tmp_path / 'mpii')


@pytest.fixture
def keep_joints(sample_set, edit):
    """Leaves only these joints in the annotations of that copy."""

    def keep_joints(joints):
        keys = 'joints', 'joints_vis'
        with edit(sample_set / 'annotations/mpii_val.json') as persons:
            for person in persons:
                person.update({key: [person[key][joint] for joint in joints] for key in keys})
        path = sample_set / 'annotations/mpii_gt_val.mat'
        truth = {key: value for key, value in loadmat(path).items() if not key.startswith('__')}
        savemat(path, truth | {key: truth[key][joints] for key in ('pos_gt_src', 'jnt_missing')})

    return keep_joints


@pytest.fixture(scope='session')
def edit():
    """``with edit(path) as content`` changes a JSON file."""

    @contextlib.contextmanager
    def edit(path):
        content = json.loads(path.read_text())
        yield content
        path.write_text(json.dumps(content))

    return edit


@pytest.fixture(scope='session')
def synthetic(tmp_path_factory):
    """Gives the folder of a synthetic data set of so many training and validation persons, made once."""

    @functools.cache
    def synthetic(num_train, num_val):
        folder = tmp_path_factory.mktemp('synthetic')
        make_synthetic(folder, num_train=num_train, num_val=num_val, seed=0, num_workers=1)
        return folder

    return synthetic


def instead(make):
    return lambda path: (path.unlink(), make(path))


@pytest.fixture(scope='session')
def damages():
    """What may happen to the file of an image, by name."""
    return dict(
        pipe=instead(os.mkfifo),
        truncated=lambda path: path.write_bytes(path.read_bytes()[:500]),
        html=lambda path: path.write_text('<html>404 Not Found</html>'),
        empty=lambda path: path.write_bytes(b''),
        missing=lambda path: path.unlink(),
        png=lambda path: path.write_bytes(b'\x89PNG\r\n\x1a\n' + path.read_bytes()),
        folder=instead(os.mkdir),
    )


@pytest.fixture(scope='session')
def small_config(synthetic):
    """Gives configs/hg_2stack_synthetic.py on so many persons, with loaders in this process."""

    def small_config(num_train, num_val, **options):
        cfg = Config.fromfile(ROOT / 'configs/hg_2stack_synthetic.py')
        for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
            loader.update(batch_size=2, num_workers=0, persistent_workers=False, pin_memory=False)
            loader.dataset.data_root = str(synthetic(num_train, num_val))
        cfg.data_root = str(synthetic(num_train, num_val))
        cfg.merge_from_dict(options)
        return cfg

    return small_config


@pytest.fixture(scope='session')
def random_norms():
    """Gives the batch norms of a network what a training would, or all channels were much the same."""

    @torch.no_grad()
    def random_norms(network):
        for module in network.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.5)
                module.running_var.uniform_(0.5, 1.5)
                if module.affine:
                    module.weight.uniform_(0.5, 2)
                    module.bias.normal_(0, 0.5)
        return network

    return random_norms


@pytest.fixture(scope='session')
def make_network(tmp_path_factory, random_norms):
    """Writes a config with other settings, and a checkpoint of random weights. Returns their paths."""

    def make_network(base, **options):
        folder = tmp_path_factory.mktemp('network')
        cfg = Config.fromfile(ROOT / 'configs' / base)
        cfg.merge_from_dict(options)
        cfg.dump(folder / 'small.py')
        init_default_scope('mmpose')
        torch.manual_seed(0)
        state = random_norms(MODELS.build(cfg.model)).state_dict()
        torch.save(dict(state_dict=state), folder / 'small.pth')
        return str(folder / 'small.py'), str(folder / 'small.pth')

    return make_network


@pytest.fixture(scope='module')
def browser(tmp_path_factory):
    """A headless Chromium that remembers what its console said and what it asked of a network."""
    webdriver = pytest.importorskip('selenium.webdriver')
    chromium, driver = (shutil.which(name) for name in ('chromium', 'chromedriver'))
    if not (chromium and driver):
        pytest.skip('chromium and chromedriver are not installed')
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    flags = 'headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking '
    flags += 'disable-component-update disable-sync disable-dev-shm-usage '
    for flag in (*flags.split(), f'user-data-dir={tmp_path_factory.mktemp("profile")}'):
        options.add_argument(f'--{flag}')
    options.set_capability('goog:loggingPrefs', dict(performance='ALL', browser='ALL'))
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    browser.command_executor.client_config.timeout = 600
    yield browser
    browser.quit()


@pytest.fixture(scope='session')
def onnx_export():
    """Skips where ONNX files cannot be made."""
    for package in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(package)
    if torch_before('2.7'):
        pytest.skip('torch before 2.7 cannot write these networks as ONNX')


@pytest.fixture(scope='session')
def cpp_compiler():
    """Skips where torch.compile has none for CPUs."""
    if shutil.which(os.environ.get('CXX', 'g++')) is None:
        pytest.skip('torch.compile needs a C++ compiler for CPUs')


class Script:
    """A script that runs in a process of its own, forked from one that has imported the package."""

    server_command = [sys.executable, 'tests/forked_python.py']
    idle: list[subprocess.Popen] = []  # which are waiting for a script

    def __init__(self, *command, **env):
        self.server = self.idle.pop() if self.idle else self.start_server()
        self.out = tempfile.NamedTemporaryFile()
        request = dict(
            argv=list(map(str, command)), cwd=str(ROOT), env={**os.environ, **env}, out=self.out.name
        )
        self.server.stdin.write(json.dumps(request) + '\n')
        self.server.stdin.flush()
        self.pid = int(self.server.stdout.readline())

    def start_server(self):
        pipes = dict(text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return subprocess.Popen(self.server_command, cwd=ROOT, **pipes)

    def printed(self):
        """All that it has printed until now."""
        return Path(self.out.name).read_text()

    def wait(self, timeout=400):
        """Returns the exit code, negative for a signal, and everything it printed."""
        alarm = threading.Timer(timeout, os.kill, (self.pid, signal.SIGKILL))
        alarm.start()
        code = int(self.server.stdout.readline())
        alarm.cancel()
        self.idle.append(self.server)
        return code, self.printed()


@pytest.fixture(scope='session')
def start():
    """Starts a script of the repository in a process of its own, see :class:`Script`."""
    yield Script
    for server in Script.idle:
        server.kill()
        server.wait()


@pytest.fixture(scope='session')
def run(start):
    """Runs a script of the repository, which must end with this exit code, and returns what it printed."""

    def run(*command, code=0, **env):
        ended, printed = start(*command, **env).wait()
        assert ended == code, printed[-3000:]
        return printed

    return run


@pytest.fixture
def free_port():
    """Gives a port, as a text, that nothing on this machine listens on, another run of these tests
    included."""

    def free_port():
        with socket.socket() as listener:
            listener.bind(('127.0.0.1', 0))
            return str(listener.getsockname()[1])

    return free_port


@pytest.fixture
def launch(free_port):
    """Runs a command line in the repository, which must end with this exit code, with a port for torchrun."""

    def launch(*command, code=0, stderr=subprocess.STDOUT, timeout=400, **env):
        env = {**os.environ, 'PORT': free_port(), 'PYTHON': sys.executable, **env}
        settings = dict(cwd=ROOT, env=env, text=True, timeout=timeout)
        done = subprocess.run([*map(str, command)], stdout=subprocess.PIPE, stderr=stderr, **settings)
        assert done.returncode == code, (done.stdout + (done.stderr or ''))[-3000:]
        return done

    return launch


@pytest.fixture
def tool(monkeypatch, capfd):
    """Runs a command line in this process, which is quick. Returns the exit code, or the sentence with which
    it ends, and all that it printed."""

    def tool(script, *arguments):
        forget_runners()
        monkeypatch.chdir(ROOT)
        monkeypatch.setattr(sys, 'argv', [str(script), *map(str, arguments)])
        code = 0
        try:
            runpy.run_path(script, run_name='__main__')
        except SystemExit as end:
            code = end.code
        printed = ''.join(capfd.readouterr())
        assert 'Traceback' not in printed
        return code, printed

    return tool
