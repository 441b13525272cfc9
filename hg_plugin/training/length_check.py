"""Check how long a training is: the steps of an epoch, and the schedule."""

from collections.abc import Iterator

from mmengine.dataset import InfiniteSampler
from mmengine.runner import Runner
from torch.utils.data import DataLoader

from hg_plugin.utils.config import parts_of
from hg_plugin.utils.errors import InputError


def check_length(runner: Runner) -> None:
    """Check a runner that has not trained yet, and warn of schedules that do not fit its length.

    Raises:
        InputError: An epoch has no step.
    """
    loop, loader = runner.train_loop, runner.train_loop.dataloader
    if not isinstance(loader, DataLoader):  # a loop of one's own
        return
    if not len(loader) and not isinstance(loader.sampler, InfiniteSampler):
        raise InputError(
            f'train_dataloader: an epoch has no step, because its {len(loader.sampler)} images do not fill a '
            f'batch of {loader.batch_size} and drop_last is {loader.drop_last}; give a smaller batch_size.'
        )
    if problems := [*_outlasting(runner.cfg, loop.max_epochs, loop.max_iters)]:
        runner.logger.warning(f'The schedule does not fit the length of the training: {"; ".join(problems)}.')


def _outlasting(cfg, max_epochs: int, max_iters: int) -> Iterator[str]:
    for place, part in parts_of(cfg, r'param_scheduler(\.\w+)*').items():
        if 'type' not in part:
            continue
        length, unit = (max_epochs, 'epochs') if part.get('by_epoch', True) else (max_iters, 'iterations')
        ends = [step + 1 for step in part.get('milestones') or ()] or [part.get('end'), part.get('T_max')]
        last = max(part.get('begin', 0) + 1, *(end or 0 for end in ends))
        if length < last < float('inf'):
            yield f'{place} ({part["type"]}) takes {last} {unit}, and the training has {length}'
