"""Random numbers that are a function of what they are drawn for, whatever was drawn before."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch

# SplitMix64 (Steele, Lea and Flood, 2014), whose outputs differ in half of the bits for neighboring inputs
GOLDEN, FIRST, SECOND, MASK = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB, 2**64 - 1


def mix(*numbers):
    """A seed of 32 bits from integers, such as a run's seed, an epoch and a sample.

    Args:
        *numbers: Not negative. The last may be an array of np.uint64.

    Returns:
        An integer, or an array of np.uint64 below 2**32.
    """
    state = 0
    for number in numbers:
        state = (state + number) & MASK
        state = (state + GOLDEN) & MASK
        state = ((state ^ (state >> 30)) * FIRST) & MASK
        state = ((state ^ (state >> 27)) * SECOND) & MASK
        state = state ^ (state >> 31)
    return state >> 32


def seed_all(seed: int) -> None:
    """Seed NumPy, Python and torch, and the GPU in use.

    ``torch.manual_seed`` does more, and takes half a millisecond where CUDA has not started.

    Args:
        seed: From 0 to 2**32 - 1.
    """
    np.random.seed(seed)
    random.seed(seed)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.default_generators[torch.cuda.current_device()].manual_seed(seed)


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Put the random states of NumPy, Python and torch on the CPU back after the ``with`` block."""
    states = np.random.get_state(), random.getstate(), torch.get_rng_state()
    try:
        yield
    finally:
        np.random.set_state(states[0])
        random.setstate(states[1])
        torch.set_rng_state(states[2])
