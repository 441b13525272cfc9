import pytest
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from mmengine.runner import Runner

from hg_plugin.utils.config import building, read_config
from hg_plugin.utils.errors import InputError


@pytest.fixture
def write(tmp_path):
    def write(text):
        (tmp_path / 'config.py').write_text(text)
        return str(tmp_path / 'config.py')

    return write


def test_a_config_is_copied_and_options_are_merged():
    cfg = Config(dict(model=dict(type='A', parts=[dict(depth=1), dict(depth=2)])))
    options = {'model.parts.1.depth': 3, 'train_cfg.max_epochs': 4, 'compile': True, 'load_from': 'a.pth'}
    other = read_config(cfg, cfg_options=options)
    assert other.model == dict(type='A', parts=[dict(depth=1), dict(depth=3)])
    assert other.train_cfg.max_epochs == 4 and other.compile and 'train_cfg' not in cfg
    assert cfg.model.parts == [dict(depth=1), dict(depth=2)]


@pytest.mark.parametrize(
    'option, instead',
    [
        ('codec.sigma', 'model.codec.sigma'),
        ('num_stacks', 'model.backbone.num_stacks'),
        ('data_root', 'train_dataloader.dataset.data_root'),
        ('optim_wraper.optimizer.lr', 'optim_wrapper.optimizer.lr'),
        ('nonsense', ''),
    ],
)
def test_an_option_that_nothing_reads_is_refused_with_the_setting_to_give(write, option, instead):
    base = "_base_ = ['hg_plugin::hg_2stack_mpii.py']\n"
    path = write(base + 'num_stacks = 1\nmodel = dict(backbone=dict(num_stacks=num_stacks))')
    with pytest.raises(InputError, match=f'option {option}.*{instead}'):
        read_config(path, cfg_options={option: 2})
    cfg = read_config(path, cfg_options={'model.backbone.num_stacks': 2})
    assert cfg.model.backbone.num_stacks == 2 and cfg.default_hooks.checkpoint.interval == 1


def test_data_root_is_that_of_every_dataset_also_in_wrappers():
    inner = [dict(type='A', data_root='a'), dict(type='Repeat', dataset=dict(type='B'))]
    train = dict(dataset=dict(type='All', datasets=inner))
    cfg = Config(dict(model={}, train_dataloader=train, val_dataloader=None, data_root='a'))
    first, second = read_config(cfg, data_root='d').train_dataloader.dataset.datasets
    assert first.data_root == second.dataset.data_root == 'd'


OWN = "custom_imports = dict(imports=['{}'], allow_failed_imports=False)\nmodel = dict()"


@pytest.mark.parametrize(
    'text, message',
    [
        ('model = foo', 'NameError.*foo'),
        ("_base_ = 'none.py'", 'none.py'),
        ('model = 3', 'has no model'),
        (OWN.format('hg_plugn'), 'import hg_plugn.*PYTHONPATH'),
        (OWN.format('own_module'), "import own_module.*'not_installed'"),
        ("__import__('not_installed')\nmodel = dict()", "ModuleNotFoundError.*'not_installed'"),
    ],
)
def test_mistakes(write, tmp_path, monkeypatch, text, message):
    (tmp_path / 'own_module.py').write_text('import not_installed')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=f'{tmp_path}/config.py .*{message}'):
        read_config(write(text))


@pytest.mark.parametrize(
    'type, message',
    [
        ('Warp', "pipeline: KeyError: 'Warp is not in .*line"),
        ('Bad', 'pipeline: AssertionError: raise .*line'),
    ],
)
def test_what_building_raises_names_the_config(type, message):
    with pytest.raises(InputError, match=f'^a.py builds no {message}'), building('a.py', 'pipeline'):
        if type == 'Bad':
            raise AssertionError  # without a message, as in MMEngine
        TRANSFORMS.build(dict(type=type))


@pytest.mark.parametrize('late', [False, True])
def test_a_mistake_in_ones_own_module_keeps_its_traceback(write, tmp_path, monkeypatch, late):
    class Helper:
        pass

    @TRANSFORMS.register_module(force=True)
    class Own:
        def __init__(self):
            Helper(1)

    with pytest.raises(TypeError, match='Helper'), building('a.py', 'pipeline', late):
        TRANSFORMS.build(dict(type='Own'))
    with pytest.raises(InputError, match='unexpected keyword'), building('a.py', 'pipeline'):
        TRANSFORMS.build(dict(type='Own', size=3))
    (tmp_path / 'broken_module.py').write_text('None.missing')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AttributeError, match='missing'):
        read_config(write(OWN.format('broken_module')))


def test_configs_of_the_package_are_read_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = read_config('hg_plugin::hg_8stack_mpii.py')
    assert cfg.model.backbone.num_stacks == 8 and cfg.filename.endswith('hg_8stack_mpii.py')
    with pytest.raises(InputError, match='hg_9stack_mpii.py does not exist'):
        read_config('hg_plugin::hg_9stack_mpii.py')


@pytest.mark.parametrize(
    'error', [InputError('as it is'), RuntimeError('CUDA out of memory'), OSError('disk')], ids=str
)
def test_errors_that_are_not_the_configs_pass(error):
    with pytest.raises(type(error)) as raised, building('a.py', 'model'):
        raise error
    assert raised.value is error


def test_what_comes_late_is_the_configs_mistake_only_where_mmengine_builds():
    with pytest.raises(TypeError), building('a.py', 'training', late=True):
        raise TypeError('in the training')
    with pytest.raises(InputError, match='Only one of `type`'), building('a.py', 'training', late=True):
        Runner.build_train_loop(Runner.__new__(Runner), dict(type='A', by_epoch=True))
    with pytest.raises(InputError, match='pip install board'), building('a.py', 'runner', late=True):
        raise ImportError('run pip install board')
