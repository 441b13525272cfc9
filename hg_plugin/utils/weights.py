"""The trained networks that the package carries."""

from pathlib import Path
from typing import NamedTuple

from hg_plugin.compat.mmengine import MIM

from .errors import InputError

FOLDER = Path(__file__).parents[1] / 'weights'
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
    """Return both as they are, or those of the default network where both are None.

    Raises:
        InputError: One of the two is None.
    """
    if config is None and checkpoint is None:
        network = shipped_networks()[DEFAULT]
        return network.config, network.checkpoint
    if config is None or checkpoint is None:
        raise InputError('Give a config and a checkpoint, or neither for the network of the package.')
    return config, checkpoint
