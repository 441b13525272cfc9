"""A training step as one CUDA graph, which the host launches at once."""

from collections.abc import Callable

import torch
from torch import Tensor

from hg_plugin.utils.errors import InputError

from .optim_wrapper import AutocastOptimWrapper


def capture(step: Callable[[], None]) -> Callable[[], None]:
    """Record what a step launches, without running it, and return what launches all of it.

    Without a GPU, the step itself is returned.
    """
    if not torch.cuda.is_available():
        return step
    graph = torch.cuda.CUDAGraph()
    # threads that pin the next batches call CUDA, too
    with torch.cuda.graph(graph, capture_error_mode='thread_local'):
        step()
    return graph.replay


class GraphedStep:
    """A ``train_step`` that is captured as a CUDA graph, for batches of the shape of the first.

    Captured are normalization and targets, network and losses, backward pass, the guard against gradients
    that are not finite, and optimizer. A batch is copied to where the graph reads it, and so are the learning
    rates. Batches of other shapes, such as an epoch's last one, train as without a graph, and so do the first
    ones. Other settings of the optimizer, such as its betas, stay as they were captured.

    Args:
        train_step: Of a model, or of a ``DistributedDataParallel``.
        optim_wrapper: Whose optimizer is fused: Adam, AdamW or :class:`MuonWithAuxAdam`.
        warmup: Steps before the capture. Defaults to 11, which torch asks for with several processes.

    Raises:
        InputError: For an optimizer that makes the host wait, accumulated or clipped gradients, or batches
            that are not tensors.
    """

    def __init__(
        self,
        train_step: Callable[..., dict[str, Tensor]],
        optim_wrapper: AutocastOptimWrapper,
        warmup: int = 11,
    ):
        waits = not getattr(optim_wrapper.optimizer, '_step_supports_amp_scaling', False)
        if waits or optim_wrapper._accumulative_counts > 1 or optim_wrapper.clip_grad_kwargs:
            raise InputError(
                'cuda_graph needs a fused Adam, AdamW or MuonWithAuxAdam in an AutocastOptimWrapper, without '
                'accumulative_counts and clip_grad; change optim_wrapper, or leave cuda_graph out.'
            )
        self.train_step = train_step
        self.optim_wrapper = optim_wrapper
        self.optimizer = optim_wrapper.optimizer
        self.warmup = warmup
        self.state: dict | None = None

    def __call__(self, data: dict, optim_wrapper: AutocastOptimWrapper) -> dict[str, Tensor]:
        if not isinstance(data.get('data_samples'), dict) or not isinstance(data['inputs'], Tensor):
            raise InputError('cuda_graph needs batches of tensors; end train_pipeline with PackKeypoints.')
        batch = {'inputs': data['inputs'], **data['data_samples']}
        if self.warmup:
            self.warmup -= 1
            return self._warm_up(data)
        if self.state is not self.optimizer.state:  # the first batch, or one after a state was loaded
            self._capture(batch)
        if any(value.shape != self.batch[name].shape for name, value in batch.items()):
            return self.train_step(data, optim_wrapper=optim_wrapper)
        for name, value in batch.items():
            self.batch[name].copy_(value, non_blocking=True)
        for rate, group in zip(self.rates, self.optimizer.param_groups):
            rate.fill_(group['lr'])
        self.replay()
        optim_wrapper._inner_count += 1
        *losses, skipped = self.values.clone()
        optim_wrapper.skipped.append(skipped)
        return dict(zip(self.names, losses))

    def _warm_up(self, data: dict) -> dict[str, Tensor]:
        """Train on a stream of its own: what the first steps set up there can be captured."""
        if not torch.cuda.is_available():
            return self.train_step(data, optim_wrapper=self.optim_wrapper)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            losses = self.train_step(data, optim_wrapper=self.optim_wrapper)
        torch.cuda.current_stream().wait_stream(stream)
        return losses

    def _capture(self, batch: dict[str, Tensor]) -> None:
        groups = self.optimizer.param_groups
        device = groups[0]['params'][0].device
        self.state = self.optimizer.state
        self.batch = {name: value.to(device, copy=True) for name, value in batch.items()}
        self.rates = [torch.tensor(group['lr'], device=device) for group in groups]
        self.replay = capture(self._step)

    def _step(self) -> None:
        """Train on ``self.batch``, at ``self.rates``, and leave names and values of the losses."""
        groups = self.optimizer.param_groups
        settings = [(group['lr'], group['capturable']) for group in groups]
        for group, rate in zip(groups, self.rates):
            group.update(lr=rate, capturable=rate.is_cuda)
        samples = {name: value for name, value in self.batch.items() if name != 'inputs'}
        data = dict(inputs=self.batch['inputs'], data_samples=samples)
        try:
            losses = self.train_step(data, optim_wrapper=self.optim_wrapper)
        finally:
            for group, (lr, capturable) in zip(groups, settings):
                group.update(lr=lr, capturable=capturable)
        self.optim_wrapper._inner_count -= 1  # counted where the graph is launched
        self.names = list(losses)
        skipped = self.optim_wrapper.skipped.pop()
        self.values = torch.stack([value.float().reshape(()) for value in (*losses.values(), skipped)])
