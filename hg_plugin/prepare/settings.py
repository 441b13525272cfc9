"""Folders of files that the same settings make again."""

import json
from pathlib import Path

from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write


def claim_folder(folder, name: str, settings: dict) -> None:
    """Write the settings of what a folder will hold to the file ``name`` in it, or find them there.

    Raises:
        InputError: The folder holds something else, or cannot be written.
    """
    path = Path(folder, name)
    settings = json.loads(json.dumps(settings))  # tuples become lists
    found = json.loads(path.read_text('utf-8')) if path.is_file() else {}
    other = [key for key, value in settings.items() if found.get(key) != value]
    if other and any(Path(folder).glob('*')):
        raise InputError(
            f'{folder} is not empty, and {name} in it does not hold {other[0]} {settings[other[0]]}; choose '
            'another folder, or remove this one.'
        )
    if other:
        with atomic_write(path) as file:
            file.write(json.dumps(settings, indent=1).encode())
