"""Nodes that were started wrong: threads stand for them, which see what processes would."""

import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest
from mmengine.config import Config
from torch.distributed import TCPStore

from hg_plugin.compat.distributed import first_host, start_processes
from hg_plugin.compat.rendezvous import meet

HERE = '127.0.0.1'


@pytest.fixture(autouse=True)
def one_second(monkeypatch):
    monkeypatch.setenv('NODE_TIMEOUT', '1')


def meet_all(*nodes):
    """Meet with these arguments at once. Returns the stores, or the sentences of those that failed."""

    def join(node):
        try:
            return meet(*node)
        except ConnectionError as error:
            return str(error)

    with ThreadPoolExecutor() as pool:
        return [*pool.map(join, nodes)]


@pytest.fixture
def port(free_port):
    return int(free_port())


def test_nodes_meet_whichever_comes_first(port, monkeypatch):
    monkeypatch.setenv('NODE_TIMEOUT', '60')
    stores = meet_all((HERE, port, 2, 3), (HERE, port, 0, 3), (HERE, port, 1, 3))
    stores[0].set('from', 'the third')
    assert [store.get('from') for store in stores] == [b'the third'] * 3
    assert {store.port for store in stores} == {port}


def test_one_node_gets_a_free_port():
    first, second = (meet(HERE, 0, 0, 1) for _ in range(2))
    assert 0 < first.port != second.port > 0


@pytest.mark.parametrize(
    'rank, size, words',
    [(0, 3, '1 s at HERE, node 1, 2 of 3 .*NODE_TIMEOUT'), (1, 2, 'node 0 is missing at HERE .*refused')],
)
def test_the_missing_are_named(port, rank, size, words):
    (sentence,) = meet_all((HERE, port, rank, size))
    assert re.search(words.replace('HERE', f'{HERE}:{port}'), sentence)


def test_a_first_node_that_ends_while_others_wait(port, monkeypatch):
    monkeypatch.setenv('NODE_TIMEOUT', '60')

    def end_when_the_second_is_there():
        TCPStore(HERE, port, None, True, wait_for_workers=False).wait(['node/1'])

    threading.Thread(target=end_when_the_second_is_there).start()
    (sentence,) = meet_all((HERE, port, 1, 3))
    assert f'node 0 at {HERE}:{port} has ended' in sentence


def test_an_unknown_host(port, monkeypatch):
    unknown = Mock(side_effect=socket.gaierror(-2, 'Name or service not known'))
    monkeypatch.setattr(socket, 'create_connection', unknown)
    (sentence,) = meet_all(('no.such.host', port, 1, 2))
    assert f'no.such.host:{port}' in sentence and 'not known' in sentence


def test_a_port_in_use_and_one_that_answers_nothing():
    with socket.socket() as other:
        other.bind((HERE, 0))
        other.listen()
        port = other.getsockname()[1]
        in_use, silent = meet_all((HERE, port, 0, 2), (HERE, port, 1, 2))
    assert 'another port' in in_use and f'{HERE}:{port}' in silent and 'does not answer' in silent


def test_ranks_and_numbers_that_cannot_be(port):
    store = TCPStore(HERE, port, None, True, wait_for_workers=False)
    store.set('node/size', '3')
    store.add('node/0', 1)
    cases = ((3, 3), 'counted from 0'), ((1, 2), 'is for 3'), ((2, 3), 'node 1 of 3 is missing')
    for node, words in cases:
        assert words in meet_all((HERE, port, *node))[0]
    assert meet_all((HERE, port, 2, 3))[0].startswith('Two are node 2 at ')


@pytest.mark.parametrize('text', ['soon', '-1', 'nan', '9' * 9])
def test_the_timeout_is_a_number(monkeypatch, text):
    monkeypatch.setenv('NODE_TIMEOUT', text)
    with pytest.raises(ConnectionError, match='NODE_TIMEOUT'):
        meet(HERE, 0, 0, 1)


@pytest.mark.parametrize(
    'nodes, first',
    [('node[007-009,12],other', 'node007'), ('r[1-2]n[3,5].site', 'r1n3.site'), ('', '')],
)
def test_the_first_host_of_slurms_list(nodes, first):
    assert first_host(nodes) == first


NAMES = ('RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT', 'TORCHELASTIC_USE_AGENT_STORE')


@pytest.fixture
def environment(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, '')  # so that it is as before afterwards
        monkeypatch.delenv(name)
    monkeypatch.setattr('hg_plugin.compat.distributed.meet', lambda *args, **kwargs: pytest.fail(str(args)))
    return monkeypatch


MPI = {f'OMPI_COMM_WORLD_{each}': '2' for each in ('RANK', 'LOCAL_RANK', 'LOCAL_SIZE')}
MPI['OMPI_COMM_WORLD_SIZE'] = '4'


@pytest.mark.parametrize(
    'launcher, env, word',
    [
        ('pytorch', {}, 'torchrun'),
        ('mpi', {}, 'mpirun'),
        # several machines need an address
        ('mpi', dict(MPI, MASTER_PORT='29500'), 'MASTER_ADDR is None'),
        ('mpi', dict(MPI, MASTER_ADDR='10.0.0.1', MASTER_PORT='x'), "MASTER_PORT is 'x'"),
    ],
)
def test_a_launcher_that_did_not_start_this(environment, tool, launcher, env, word):
    for name, value in env.items():
        environment.setenv(name, value)
    assert word in tool('tools/train.py', 'configs/hg_2stack_synthetic.py', '--launcher', launcher)[0]


def test_slurms_variables_are_torchs(environment):
    met = []
    environment.setattr('hg_plugin.compat.distributed.meet', lambda *args, **kwargs: met.append(args))
    environment.setattr('torch.distributed.init_process_group', lambda *args, **kwargs: None)
    environment.setattr('atexit.register', lambda function: None)
    env = dict(SLURM_PROCID='3', SLURM_NTASKS='16', SLURM_LOCALID='1', SLURM_NODELIST='gpu[04-05]')
    for name, value in dict(env, SLURM_JOB_ID='1234567').items():
        environment.setenv(name, value)
    environment.delenv('SLURM_STEP_NODELIST', raising=False)
    start_processes(Config(dict(launcher='slurm')))
    assert met == [('gpu04', 10000 + 1234567 % 20000, 3, 16)]
