"""Activation checkpointing that leaves the running statistics of batch norms as they are without it."""

import contextlib

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from hg_plugin.compat.torch import is_compiling


@contextlib.contextmanager
def frozen_running_stats(modules: tuple[nn.Module, ...]):
    """Let batch norms normalize by the batch as in training, without an update of their running statistics.

    They still compute the update, with a momentum of 0: torch compares what both forward passes save.
    """
    norms = [
        (norm, norm.momentum, norm.num_batches_tracked)
        for module in modules
        for norm in module.modules()
        if isinstance(norm, _BatchNorm) and norm.track_running_stats
    ]
    for norm, _, count in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, count.clone()
    try:
        yield
    finally:
        for norm, momentum, count in norms:
            norm.momentum, norm.num_batches_tracked = momentum, count


def checkpoint_modules(x: Tensor, *modules: nn.Module) -> Tensor:
    """Run modules one after another; keep only ``x`` for the backward pass, which runs them again."""

    def run(x: Tensor) -> Tensor:
        for module in modules:
            x = module(x)
        return x

    if is_compiling():  # a compiled graph computes again without a second update
        return checkpoint(run, x, use_reentrant=False)
    return checkpoint(
        run,
        x,
        use_reentrant=False,
        context_fn=lambda: (contextlib.nullcontext(), frozen_running_stats(modules)),
    )
