from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import TRANSFORMS
from mmengine.runner import Runner

from hg_plugin.utils.config import building, parts_of, read_config
from hg_plugin.utils.errors import InputError, command


@pytest.fixture
def write(tmp_path):
    def write(text):
        (tmp_path / 'config.py').write_text(text)
        return str(tmp_path / 'config.py')

    return write


def test_a_config_is_copied_and_options_are_merged():
    cfg = Config(dict(model=dict(type='A', parts=[dict(depth=1), dict(depth=2)])))
    other = read_config(cfg, cfg_options={'model.parts.1.depth': 3, 'train_cfg.max_epochs': 4})
    assert other.model == dict(type='A', parts=[dict(depth=1), dict(depth=3)])
    assert other.train_cfg.max_epochs == 4 and 'train_cfg' not in cfg
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
    base = Path(__file__).parents[2] / 'configs/hg_2stack_mpii.py'
    path = write(
        f'_base_ = [{str(base)!r}]\nnum_stacks = 1\nmodel = dict(backbone=dict(num_stacks=num_stacks))'
    )
    with pytest.raises(InputError, match=f'option {option}.*{instead}'):
        read_config(path, cfg_options={option: 2})
    cfg = read_config(path, cfg_options={'model.backbone.num_stacks': 2})
    assert cfg.model.backbone.num_stacks == 2 and cfg.default_hooks.checkpoint.interval == 1


def test_data_root_is_that_of_every_dataset_also_in_wrappers():
    inner = [dict(type='A', data_root='a'), dict(type='Repeat', dataset=dict(type='B'))]
    cfg = dict(
        model={},
        train_dataloader=dict(dataset=dict(type='All', datasets=inner)),
        val_dataloader=None,
        data_root='a',
    )
    cfg = read_config(Config(cfg), data_root='d')
    assert cfg.train_dataloader.dataset == dict(
        type='All',
        datasets=[dict(type='A', data_root='d'), dict(type='Repeat', dataset=dict(type='B', data_root='d'))],
    )


def test_parts_are_found_by_place():
    cfg = Config(dict(a=[dict(b=1), 3, dict(b=dict(c=2))], b=4))
    assert parts_of(cfg, r'a\.\d+') == {'a.0': dict(b=1), 'a.2': dict(b=dict(c=2))}
    assert parts_of(cfg, r'.+\.b') == {'a.2.b': dict(c=2)}


@pytest.mark.parametrize(
    'text, message',
    [
        ('model = dict(', 'cannot be read: SyntaxError: '),
        ('model = foo', "cannot be read: NameError: name 'foo' is not defined; correct it"),
        ("_base_ = 'none.py'", 'cannot be read: FileNotFoundError: .*none.py'),
        ('epochs = 3', r'has no model = dict\(...\); add it'),
        ('model = 3', 'has no model'),
    ],
)
def test_mistakes(write, text, message):
    path = write(text)
    with pytest.raises(InputError, match=f'{path} {message}'):
        read_config(path)


def test_files_and_options_that_do_not_fit(write, tmp_path):
    with pytest.raises(InputError, match='config file .*none.py does not exist; configs/ holds'):
        read_config(str(tmp_path / 'none.py'))
    with pytest.raises(InputError, match='is a folder'):
        read_config(tmp_path)
    with pytest.raises(
        InputError, match="config.py builds no run with {'model.a.5.b': 1}: KeyError: .*Index 5"
    ):
        read_config(write('model = dict(a=[dict(b=1)])'), cfg_options={'model.a.5.b': 1})


def test_a_typo_in_custom_imports_is_told_in_one_line_that_names_config_and_module(write):
    path = write("custom_imports = dict(imports=['hg_plugn'], allow_failed_imports=False)\nmodel = dict()")
    with pytest.raises(SystemExit) as end:
        command(read_config)(path)
    assert end.value.code == (
        f'error: The config file {path} cannot be read: custom_imports: Failed to import hg_plugn: No module '
        "named 'hg_plugn'; correct the name, or set PYTHONPATH to the folder that holds the module."
    )


def test_a_custom_import_that_itself_fails_says_why(write, tmp_path, monkeypatch):
    (tmp_path / 'own_module.py').write_text('import not_installed')
    monkeypatch.syspath_prepend(tmp_path)
    path = write("custom_imports = dict(imports=['own_module'], allow_failed_imports=False)\nmodel = dict()")
    with pytest.raises(InputError, match="Failed to import own_module: No module named 'not_installed'; "):
        read_config(path)
    with pytest.raises(InputError, match="ModuleNotFoundError: No module named 'not_installed'; correct it"):
        read_config(write("__import__('not_installed')\nmodel = dict()"))


def test_options_that_the_runner_reads_need_not_be_in_the_config():
    cfg = Config(dict(model={}))
    options = {'val_dataloader.batch_size': 2, 'compile': True, 'load_from': 'a.pth'}
    assert read_config(cfg, cfg_options=options).val_dataloader.batch_size == 2


def test_what_building_raises_names_the_config():
    message = r"^a.py builds no pipeline: KeyError: 'Warp is not in .* \(build_functions.py, line \d+\)"
    with pytest.raises(InputError, match=message), building('a.py', 'pipeline'):
        TRANSFORMS.build(dict(type='Warp'))
    message = r'^The config builds no hook: AssertionError: raise .* \(test_config.py, line \d+\)'
    with pytest.raises(InputError, match=message), building(Config(), 'hook'):
        raise AssertionError  # without a message, as in MMEngine
    for error in (InputError('as it is'), RuntimeError('CUDA out of memory'), OSError('disk')):
        with pytest.raises(type(error)) as raised, building('a.py', 'model'):
            raise error
        assert raised.value is error


@pytest.mark.parametrize('late', [False, True])
def test_a_mistake_in_ones_own_module_keeps_its_traceback(late):
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


def test_a_mistake_in_a_custom_import_keeps_its_traceback(write, tmp_path, monkeypatch):
    (tmp_path / 'broken_module.py').write_text('None.missing')
    monkeypatch.syspath_prepend(tmp_path)
    path = write(
        "custom_imports = dict(imports=['broken_module'], allow_failed_imports=False)\nmodel = dict()"
    )
    with pytest.raises(AttributeError, match='missing'):
        read_config(path)


def test_late_only_what_mmengine_builds_is_the_configs_mistake():
    with pytest.raises(TypeError), building('a.py', 'training', late=True):
        raise TypeError('in the training')
    with pytest.raises(
        InputError, match='a.py builds no training: RuntimeError: Only one of `type` or `by_epoch`'
    ):
        with building('a.py', 'training', late=True):
            Runner.build_train_loop(Runner.__new__(Runner), dict(type='A', by_epoch=True))


def test_configs_of_the_package_are_read_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = read_config('hg_plugin::hg_8stack_mpii.py')
    assert cfg.model.backbone.num_stacks == 8 and cfg.filename.endswith('hg_8stack_mpii.py')
    with pytest.raises(InputError, match='hg_9stack_mpii.py does not exist'):
        read_config('hg_plugin::hg_9stack_mpii.py')


def test_a_package_that_a_setting_needs_is_named_in_one_sentence():
    with pytest.raises(InputError, match='x.py needs a package .* imported: run pip install board'):
        with building('x.py', 'runner', late=True):
            raise ImportError('run pip install board')
