"""Samplers whose samples are augmented as a function of (seed, epoch, sample) and of nothing else.

MMEngine seeds a loader's workers when they start. What they draw then depends on their number, and on whether
they persist: where they do not, every epoch draws the same random numbers.
"""

import contextlib
import itertools
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import get_worker_info

from hg_plugin.utils.randomness import mix, preserved, seed_all


class Draw(int):
    """The index of a sample, with the seed of this draw."""

    seed: int

    def __new__(cls, index: int, seed: int):
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __reduce__(self):  # a worker gets it through a queue
        return Draw, (int(self), self.seed)


def _draws(indices: list[int], seed: int, epoch: int) -> Iterator[Draw]:
    return map(Draw, indices, mix(seed, epoch, np.array(indices, dtype=np.uint64)).tolist())


class _SeededItems:
    """A dataset's ``__getitems__``, through which a loader asks for a batch: each draw has its own seed.

    The outermost dataset has it, so that the seed also holds for what wrappers, as ``RepeatDataset``, draw.
    """

    def __init__(self, dataset):
        self.dataset = dataset

    def __call__(self, indices: list[int]) -> list:
        with preserved() if get_worker_info() is None else contextlib.nullcontext():
            return [self._item(index) for index in indices]

    def _item(self, index: int):
        if isinstance(index, Draw):
            seed_all(index.seed)
        return self.dataset[int(index)]


class _Seeded:
    """A sampler that gives its dataset a ``__getitems__``."""

    def __init__(self, dataset, **kwargs):
        super().__init__(dataset, **kwargs)
        # how many samples, in all processes together, the next iteration leaves out
        self.start = 0
        dataset.__getitems__ = _SeededItems(dataset)


@DATA_SAMPLERS.register_module()
class SeededSampler(_Seeded, DefaultSampler):
    """MMEngine's ``DefaultSampler``, with its arguments and order, for reproducible augmentation.

    Every sample gets its own seed from the run's seed, the epoch and its index. NumPy's, Python's and torch's
    random numbers in the dataset's transforms so depend neither on the number of workers and processes nor on
    an interruption. :class:`hg_plugin.engine.ExactResumeHook` lets it begin in the middle of an epoch.

    Args:
        dataset: The outermost dataset, which gets a ``__getitems__``.
        **kwargs: ``shuffle``, ``seed`` and ``round_up`` of ``DefaultSampler``.
    """

    def __iter__(self) -> Iterator[Draw]:
        start, self.start = self.start, 0
        return _draws(list(super().__iter__())[start // self.world_size :], self.seed, self.epoch)


@DATA_SAMPLERS.register_module()
class SeededInfiniteSampler(_Seeded, InfiniteSampler):
    """MMEngine's ``InfiniteSampler``, with its arguments, for reproducible augmentation.

    See :class:`SeededSampler`. Its epochs follow each other without an end.

    Args:
        dataset: The outermost dataset, which gets a ``__getitems__``.
        **kwargs: ``shuffle`` and ``seed`` of ``InfiniteSampler``.
    """

    def __iter__(self) -> Iterator[Draw]:
        first, start = divmod(self.start, self.size)
        self.start = 0
        for epoch in itertools.count(first):
            order = torch.arange(self.size)
            if self.shuffle:
                order = torch.randperm(
                    self.size, generator=torch.Generator().manual_seed(mix(self.seed, epoch))
                )
            # processes take turns, also across the end of an epoch
            own = start + (self.rank - epoch * self.size - start) % self.world_size
            yield from _draws(order[own :: self.world_size].tolist(), self.seed, epoch)
            start = 0
