import itertools
import random

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset
from torch.utils.data import DataLoader

from hg_plugin.datasets import SeededInfiniteSampler, SeededSampler
from hg_plugin.utils.randomness import mix, seed_all


class Draws(BaseDataset):
    """Items are a sample's number and what transforms may draw for it."""

    def __init__(self, size, first=0):
        self.numbers = range(first, first + size)
        super().__init__(ann_file='', serialize_data=False)

    def load_data_list(self):
        return [dict(number=number) for number in self.numbers]

    def prepare_data(self, idx):
        drawn = np.random.rand(), random.random(), torch.rand(1).item()
        return (self.get_data_info(idx)['number'], *drawn)


def epochs(dataset, number=2, workers=0, persistent=False, batch_size=3, **kwargs):
    """The samples of some epochs, in order."""
    sampler = SeededSampler(dataset, seed=3, **kwargs)
    options = dict(num_workers=workers, persistent_workers=persistent, collate_fn=list)
    loader = DataLoader(dataset, batch_size, sampler=sampler, **options)
    result = []
    for epoch in range(number):
        sampler.set_epoch(epoch)
        result.append([sample for batch in loader for sample in batch])
    return result


def test_augmentation_depends_on_seed_epoch_and_sample_and_nothing_else():
    np.random.seed(0)
    first, second = epochs(Draws(8))
    np.random.seed(1)
    for workers, persistent, batch_size in ((1, False, 3), (2, True, 2), (2, False, 3)):
        assert epochs(Draws(8), 2, workers, persistent, batch_size) == [first, second]
    assert sorted(sample[0] for sample in second) == list(range(8))
    # neither another sample, nor another epoch, nor another generator draws the same
    drawn = [draw for sample in first + second for draw in sample[1:]]
    assert len(set(drawn)) == 48
    for unshuffled in epochs(Draws(8), 1, shuffle=False):
        assert sorted(unshuffled) == sorted(first)


def test_the_random_state_of_the_main_process_is_left_alone():
    seed_all(5)
    expected = np.random.rand(), random.random(), torch.rand(1).item()
    sampler = SeededSampler(dataset := Draws(4), seed=0)
    seed_all(5)
    dataset.__getitems__(list(sampler))
    assert (np.random.rand(), random.random(), torch.rand(1).item()) == expected


def test_wrapped_datasets_draw_anew_for_every_index():
    (repeated,) = epochs(RepeatDataset(Draws(5), times=2), 1)
    (joined,) = epochs(ConcatDataset([Draws(5), Draws(5)]), 1, workers=1)
    for samples in (repeated, joined):
        assert sorted(sample[0] for sample in samples) == sorted([*range(5), *range(5)])
        assert len({sample[1] for sample in samples}) == 10


@pytest.fixture
def processes(monkeypatch):
    """Lets samplers believe that they are in this process of so many."""

    def processes(rank, world_size):
        monkeypatch.setattr('mmengine.dataset.sampler.get_dist_info', lambda: (rank, world_size))

    return processes


@pytest.mark.parametrize('world_size, size', [(1, 7), (2, 7), (2, 8), (3, 7)])
def test_an_epoch_goes_on_in_its_middle(processes, world_size, size):
    for rank in range(world_size):
        processes(rank, world_size)
        sampler = SeededSampler(range_dataset(size), seed=1)
        sampler.set_epoch(4)
        whole = draws(sampler)
        for done in range(len(whole) + 1):
            sampler.start = done * world_size
            assert draws(sampler) == whole[done:]
        assert draws(sampler) == whole  # only once
        assert len(sampler) == len(whole)


@pytest.mark.parametrize('world_size, size', [(1, 5), (2, 5), (2, 6), (3, 5)])
def test_infinite_epochs_go_on_anywhere(processes, world_size, size):
    taken = {}
    for rank in range(world_size):
        processes(rank, world_size)
        sampler = SeededInfiniteSampler(range_dataset(size), seed=1)
        whole = draws(sampler, 4 * size)
        for done in range(3 * size):
            sampler.start = done * world_size
            assert draws(sampler, size) == whole[done : done + size]
        taken.update({position * world_size + rank: draw for position, draw in enumerate(whole)})
    stream = [taken[position] for position in sorted(taken)]
    for epoch in range(3):
        assert sorted(index for index, _ in stream[epoch * size : (epoch + 1) * size]) == list(range(size))
    assert len({seed for _, seed in stream[: 4 * size]}) == 4 * size
    assert [index for index, _ in stream[:size]] != [index for index, _ in stream[size : 2 * size]]


def range_dataset(size):
    return type('Dataset', (), dict(__len__=lambda self: size))()


def draws(sampler, number=None):
    return [(int(draw), draw.seed) for draw in itertools.islice(sampler, number)]


def test_seeds_are_spread():
    seeds = np.stack([mix(0, epoch, np.arange(1000, dtype=np.uint64)) for epoch in range(100)])
    assert seeds.max() < 2**32 and len(np.unique(seeds)) > 99_990  # chance alone repeats one or two
    assert int(seeds[7, 9]) == mix(0, 7, 9)
    assert mix(0, 1, 2) != mix(1, 0, 2) != mix(0, 2, 1)
