"""Configs as lists of settings, and how two of them differ."""

import ast
import warnings
from pathlib import Path
from typing import Any

from mmengine.config import Config

from hg_plugin.compat.mmengine import MIM
from hg_plugin.utils.errors import InputError

# what a run adds to every config
OWN = ('work_dir', 'launcher', 'resume')


class _Literals(ast.NodeTransformer):
    """Turn calls of dict into displays, and what is no literal into its text."""

    def visit_Call(self, node: ast.Call) -> ast.expr:
        names = [keyword.arg for keyword in node.keywords]
        if getattr(node.func, 'id', None) != 'dict' or node.args or None in names:
            return ast.Constant(ast.unparse(node))
        keys: list[ast.expr | None] = [ast.Constant(name) for name in names]
        return ast.Dict(keys, [self.visit(keyword.value) for keyword in node.keywords])

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(float(node.id) if node.id in ('inf', 'nan') else node.id)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return ast.Constant(ast.unparse(node))


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a config that a run has written, which is not run.

    Raises:
        InputError: It does not consist of assignments of values.
    """
    settings = {}
    try:
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                settings[node.targets[0].id] = ast.literal_eval(_Literals().visit(node.value))
    except (OSError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise InputError(f'{path} cannot be read as settings ({error}); restore it.') from error
    return settings


def flatten(cfg: Config | dict) -> dict[str, str]:
    """The settings of a config by their places, such as ``optim_wrapper.optimizer.lr``, as text."""
    settings: dict[str, str] = {}

    def walk(place: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            items = value.items()
        elif isinstance(value, (list, tuple)) and any(isinstance(item, dict) for item in value):
            items = enumerate(value)
        else:
            settings[place] = repr(_lists(value))
            return
        for key, item in items:
            walk(f'{place}.{key}'.lstrip('.'), item)

    walk('', cfg._cfg_dict if isinstance(cfg, Config) else cfg)
    return {place: settings[place] for place in sorted(settings) if place.partition('.')[0] not in OWN}


def _lists(value: Any) -> Any:
    """With lists for tuples, as in a config that was written and read again."""
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def shipped_base(settings: dict[str, str], filename: str) -> tuple[str, dict[str, str]]:
    """The config of the package with this file name, or else the one that differs least, and its settings."""
    paths = sorted((MIM / 'configs').glob('*.py'))
    paths = [path for path in paths if path.name == filename] or paths
    shipped = {}
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for path in paths:
            shipped[path.name] = flatten(Config.fromfile(path, import_custom_modules=False))
    name = min(shipped, key=lambda name: len(set(shipped[name].items()) ^ set(settings.items())))
    return name, shipped[name]


def differences(columns: list[dict[str, str]]) -> dict[str, list[str | None]]:
    """Settings that are not the same everywhere, with their values; None where one is not set."""
    places = sorted({place for column in columns for place in column})
    rows = {place: [column.get(place) for column in columns] for place in places}
    return {place: values for place, values in rows.items() if len(set(values)) > 1}
