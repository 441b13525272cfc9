"""The trained networks that the package carries."""

from os import PathLike
from pathlib import Path
from typing import NamedTuple

from mmengine.runner.checkpoint import CheckpointLoader, load_from_local

from hg_plugin.compat.mmengine import MIM

from .errors import InputError

FOLDER = Path(__file__).parents[1] / 'weights'
# before a network's name where a path could stand
PREFIX = 'hg_plugin::'
# what PoseEstimator() loads
DEFAULT = 'hg_2stack_lspet_128'


class ShippedNetwork(NamedTuple):
    """Files of a trained network: its config, its weights in half precision, and its model card."""

    config: Path
    checkpoint: Path
    card: Path

    @property
    def summary(self) -> str:
        """The first paragraph of the card."""
        return ' '.join(self.card.read_text(encoding='utf-8').split('\n\n')[1].split())


def shipped_networks() -> dict[str, ShippedNetwork]:
    """The networks by name."""
    return {
        path.stem: ShippedNetwork(MIM / 'configs' / f'{path.stem}.py', path, path.with_suffix('.md'))
        for path in sorted(FOLDER.glob('*.pth'))
    }


def config_and_checkpoint(config, checkpoint) -> tuple:
    """Return both as they are, or those of a network of the package.

    Args:
        config, checkpoint: Both None for the default network. Or its name, perhaps after ``hg_plugin::``, in
            place of ``config``, and None; or in place of ``checkpoint``, see :func:`checkpoint_path`.

    Raises:
        InputError: One of the two is None otherwise, or there is no network of this name.
    """
    if checkpoint is None:
        name = DEFAULT if config is None else str(config).removeprefix(PREFIX)
        if name in (networks := shipped_networks()):
            return networks[name].config, networks[name].checkpoint
    if config is None or checkpoint is None:
        names = ', '.join(shipped_networks())
        raise InputError(
            'Give a config and a checkpoint, or neither for the network of the package, or the name of one: '
            f'{names}.'
        )
    return config, checkpoint_path(checkpoint)


def checkpoint_path(path: str | PathLike) -> str | PathLike:
    """The file of ``hg_plugin::NAME``, a network of the package; another path as it is.

    Raises:
        InputError: There is no network of this name.
    """
    if not str(path).startswith(PREFIX):
        return path
    networks = shipped_networks()
    if str(path).removeprefix(PREFIX) not in networks:
        raise InputError(f'{path} is no network of the package; choose from {", ".join(networks)}.')
    return str(networks[str(path).removeprefix(PREFIX)].checkpoint)


@CheckpointLoader.register_scheme(prefixes=PREFIX, force=True)
def load_shipped(filename: str, map_location=None) -> dict:
    """Lets ``load_from`` and ``init_cfg`` of any of MMEngine's runners name a network of the package."""
    return load_from_local(checkpoint_path(filename), map_location)
