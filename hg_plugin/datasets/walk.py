"""Wrapped datasets: RepeatDataset, ConcatDataset, CombinedDataset and the like."""

from collections.abc import Iterator


def wrapped(dataset) -> list:
    """The datasets that a wrapper holds; none for any other dataset."""
    several = getattr(dataset, 'datasets', getattr(dataset, '_datasets', ()))
    return [each for each in (getattr(dataset, 'dataset', None), *several) if each is not None]


def walk(dataset) -> Iterator:
    """A dataset and all that it wraps, from the outside in."""
    yield dataset
    for each in wrapped(dataset):
        yield from walk(each)
