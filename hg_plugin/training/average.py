"""Average the weights of several trainings to one network (Wortsman et al., Model soups, ICML 2022)."""

import functools
from collections.abc import Sequence
from itertools import islice
from os import PathLike

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.optim.swa_utils import update_bn

from hg_plugin.utils.checkpoint import check_weights, read_checkpoint, save, weights_of
from hg_plugin.utils.config import building
from hg_plugin.utils.errors import InputError
from hg_plugin.utils.files import atomic_write
from hg_plugin.utils.progress import Progress
from hg_plugin.utils.randomness import seed_all

from .runner import load_config


def average_checkpoints(
    config: str | PathLike | Config,
    checkpoints: Sequence[str],
    out: str,
    *,
    shares: Sequence[float] | None = None,
    batches: int = 40,
    half: bool = False,
    data_root: str | None = None,
    cfg_options: dict | None = None,
) -> None:
    """Average checkpoints of one network, trained from the same weights, and write the result.

    Averages of weights that were trained apart from random values are useless. The running statistics of
    batch norms do not fit averaged weights, so they are computed anew on training images, augmented as in the
    training.

    Args:
        config: Path of the config file, or the config, of all checkpoints.
        checkpoints: Their paths. One alone is rewritten with new statistics.
        out: Checkpoint to write: weights in float32, and the dataset's metainfo of the first checkpoint.
        shares: What each counts, in any unit. Defaults to None: all the same.
        batches: Training batches for the statistics, of the config's size. Defaults to 40.
        half: Write weights in half precision, and statistics in float32. Defaults to False.
        data_root: Folder of the dataset. Defaults to the config's.
        cfg_options: Settings to override.

    Raises:
        InputError: The config, an option or a checkpoint is wrong.
    """
    shares = [1.0] * len(checkpoints) if shares is None else list(shares)
    if len(shares) != len(checkpoints) or not sum(shares):
        raise InputError(f'{len(checkpoints)} checkpoints need as many shares, but got {shares}.')
    cfg = load_config(config, data_root=data_root, cfg_options=cfg_options)
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    seed = (cfg.get('randomness') or {}).get('seed') or 0
    seed_all(seed)
    with building(cfg, 'model or dataset'):
        model = MODELS.build(cfg.model)
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=seed)

    average: dict[str, torch.Tensor] = {}
    meta: dict = {}  # names, flip pairs and unannotated keypoints of the dataset
    for path, share in zip(checkpoints, shares):
        content = read_checkpoint(path)
        weights = weights_of(content, path)
        meta = meta or (content.get('meta') or {}).get('dataset_meta') or {}
        check_weights(model, weights, path)
        for name, weight in weights.items():
            average[name] = average.get(name, 0) + weight.double() * (share / sum(shares))
    model.load_state_dict(average)

    model.to('cuda' if torch.cuda.is_available() else 'cpu')
    with Progress(min(batches, len(loader)), 'batches') as progress:

        def inputs():
            for batch in islice(loader, batches):
                yield model.data_preprocessor(batch, training=True)['inputs']
                progress.update()

        model.forward = functools.partial(model.forward, data_samples=None)
        update_bn(inputs(), model)
    with atomic_write(out) as file:
        content = dict(state_dict=halved(model) if half else model.state_dict())
        save(content | (dict(meta=dict(dataset_meta=meta)) if meta else {}), file)


def halved(model: nn.Module) -> dict[str, torch.Tensor]:
    """The state dict with parameters in half precision, and running statistics as they are, on the CPU."""
    parameters = dict(model.named_parameters())
    return {
        name: (value.half() if name in parameters else value).cpu()
        for name, value in model.state_dict().items()
    }
