"""Check how long a training is: steps of an epoch, the size of its last batch, and the schedule."""

from collections.abc import Iterator

import torch
from mmengine.dataset import InfiniteSampler
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from hg_plugin.models.checkpointing import frozen_running_stats
from hg_plugin.utils.config import parts_of
from hg_plugin.utils.errors import InputError


def check_length(runner: Runner) -> None:
    """Check a runner that has not trained yet, and warn of schedules that do not fit its length.

    Raises:
        InputError: An epoch has no step, or its last batch is too small for batch norm.
    """
    loop, loader = runner.train_loop, runner.train_loop.dataloader
    if not isinstance(loader, DataLoader):  # a loop of one's own
        return
    endless = isinstance(loader.sampler, InfiniteSampler)
    if not len(loader) and not endless:
        raise InputError(
            f'train_dataloader: an epoch has no step, because its {len(loader.sampler)} images do not fill a '
            f'batch of {loader.batch_size} and drop_last is {loader.drop_last}; give a smaller batch_size.'
        )
    size = loader.batch_size
    left = 0 if endless or loader.drop_last or not size else len(loader.sampler) % size
    if (left or size) == 1 and _needs_two_images(runner):
        raise InputError(
            f'train_dataloader: {len(loader.sampler)} images in batches of {size} leave a batch of one, too '
            'small for batch norm at the lowest resolution of the network; set drop_last=True or another '
            'batch_size.'
        )
    if problems := [*_outlasting(runner.cfg, loop.max_epochs, loop.max_iters)]:
        runner.logger.warning(f'The schedule does not fit the length of the training: {"; ".join(problems)}.')


def _needs_two_images(runner: Runner) -> bool:
    """Whether a batch norm has one value a channel for one image."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    size = getattr(getattr(getattr(model, 'head', None), 'decoder', None), 'input_size', None)
    if size is None:
        return False
    first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    image = torch.zeros(1, first.in_channels, size[1], size[0], device=first.weight.device)
    try:
        with torch.no_grad(), frozen_running_stats((model.train(),)):
            model.extract_feat(image)
    except ValueError as error:
        return 'more than 1 value per channel' in str(error)
    return False


def _outlasting(cfg, max_epochs: int, max_iters: int) -> Iterator[str]:
    for place, part in parts_of(cfg, r'param_scheduler(\.\w+)*').items():
        if 'type' not in part:
            continue
        length, unit = (max_epochs, 'epochs') if part.get('by_epoch', True) else (max_iters, 'iterations')
        ends = [step + 1 for step in part.get('milestones') or ()] or [part.get('end'), part.get('T_max')]
        last = max(part.get('begin', 0) + 1, *(end or 0 for end in ends))
        if length < last < float('inf'):
            yield f'{place} ({part["type"]}) takes {last} {unit}, and the training has {length}'
