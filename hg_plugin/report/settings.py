"""Configs as lists of settings, and how two of them differ."""

import ast
from pathlib import Path
from typing import Any

from mmengine.config import Config

from hg_plugin.compat.mmengine import MIM
from hg_plugin.utils.errors import InputError

# what a run adds to every config
OWN = ('work_dir', 'launcher', 'resume')


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a config that a run has written, which is not run.

    Raises:
        InputError: It is missing or damaged.
    """
    try:
        nodes = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f'{path} cannot be read as settings ({error}); restore it.') from error
    assignments = [node for node in nodes if isinstance(node, ast.Assign)]
    return {ast.unparse(node.targets[0]): _value(node.value) for node in assignments}


def _value(node: ast.expr) -> Any:
    """The value of a literal, in which ``dict()`` is one, too; the text of anything else."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) == 'dict' and not node.args:
        return {str(keyword.arg): _value(keyword.value) for keyword in node.keywords}
    if isinstance(node, ast.Dict):
        return {_value(key): _value(value) for key, value in zip(node.keys, node.values)}
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_value(item) for item in node.elts]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def flatten(cfg: dict) -> dict[str, str]:
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

    walk('', cfg)
    return {place: settings[place] for place in sorted(settings) if place.partition('.')[0] not in OWN}


def _lists(value: Any) -> Any:
    """With lists for tuples, as :func:`read_settings` has them."""
    return [_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def shipped_base(settings: dict[str, str], filename: str) -> tuple[str, dict[str, str]]:
    """The config of the package with this file name, or else the one that differs least, and its settings."""
    paths = sorted((MIM / 'configs').glob('*.py'))
    paths = [path for path in paths if path.name == filename] or paths
    shipped = {
        path.name: flatten(Config.fromfile(path, import_custom_modules=False).to_dict()) for path in paths
    }
    name = min(shipped, key=lambda name: len(set(shipped[name].items()) ^ set(settings.items())))
    return name, shipped[name]


def differences(columns: list[dict[str, str]]) -> dict[str, list[str | None]]:
    """Settings that are not the same everywhere, with their values; None where one is not set."""
    places = sorted({place for column in columns for place in column})
    rows = {place: [column.get(place) for column in columns] for place in places}
    return {place: values for place, values in rows.items() if len(set(values)) > 1}
