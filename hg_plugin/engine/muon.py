"""An optimizer that takes steps of equal size in all directions of a convolution's weights."""

from collections import defaultdict

import torch
from mmengine.registry import OPTIMIZERS
from torch import Tensor


@OPTIMIZERS.register_module()
class MuonWithAuxAdam(torch.optim.AdamW):
    """Muon for convolutions between features, and Adam for all other parameters: biases, normalization, and
    convolutions from images and to and from heatmaps.

    Muon (Jordan et al., 2024, kellerjordan.github.io/posts/muon) steps along the momentum of the gradient
    with all its singular values made equal. Directions that a large gradient hides then count as much as the
    rest: in the same number of steps, an hourglass learns more than with Adam, see docs/recipe.md.
    ``torch.optim.Muon`` does the same for matrices alone.

    Args:
        params: Parameters, or groups of them. Every group is split into its convolutions and the rest.
        lr: Learning rate of Adam. Defaults to 2e-3.
        muon_lr: Learning rate of Muon. In groups that set ``lr``, it is changed alike. Defaults to 0.04.
        momentum: Of Muon. Defaults to 0.95.
        betas: Of Adam. Defaults to (0.9, 0.99).
        weight_decay: Decoupled from the gradients, in both. Defaults to 0.
        min_channels: A convolution with fewer channels, in or out, is Adam's. Defaults to 32, which leaves
            images and the heatmaps of up to 31 keypoints to it.
        **kwargs: ``eps``, ``fused`` and the like, of ``torch.optim.AdamW``.
    """

    def __init__(
        self,
        params,
        lr: float = 2e-3,
        muon_lr: float = 0.04,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        min_channels: int = 32,
        **kwargs,
    ):
        params = list(params)
        groups = []
        for group in params if isinstance(params[0], dict) else [dict(params=params)]:
            halves: dict[bool, list[Tensor]] = defaultdict(list)
            members = group['params']
            for parameter in [members] if isinstance(members, Tensor) else members:
                halves[parameter.ndim == 4 and min(parameter.shape[:2]) >= min_channels].append(parameter)
            for muon, half in halves.items():
                rate = group.get('lr', lr) * (muon_lr / lr if muon else 1)
                groups.append({**group, 'params': half, 'lr': rate, 'muon': muon})
        self.momentum = momentum
        super().__init__(groups, lr, betas, weight_decay=weight_decay, **kwargs)

    def __setstate__(self, state):
        torch.optim.Optimizer.__setstate__(self, state)  # Adam's looks for its own state in every parameter

    @torch.no_grad()
    def step(self, closure=None):
        """Update the parameters that have gradients.

        Gradients are divided by the attribute ``grad_scale``, and nothing is changed where ``found_inf`` is
        1: scalar tensors that torch's ``GradScaler`` sets for fused optimizers.

        Args:
            closure: As in torch's optimizers: computes the loss and the gradients.

        Returns:
            What ``closure`` returns, or None.
        """
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group['muon']]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        alike = defaultdict(list)  # convolutions of one shape are one operation
        for group in groups:
            for parameter in group['params'] if group['muon'] else []:
                if parameter.grad is not None:
                    alike[parameter.shape, group['lr'], group['weight_decay'], parameter.device].append(
                        parameter
                    )
        skip = getattr(self, 'found_inf', None)
        for (shape, lr, weight_decay, _), parameters in alike.items():
            rate = lr if skip is None else lr * (1 - skip)
            updates = orthogonalize(self.nesterov_momenta(parameters, skip).flatten(2))
            rows, columns = updates.shape[1:]
            if weight_decay:
                torch._foreach_mul_(parameters, 1 - rate * weight_decay)
            steps = updates * (rate * max(1, rows / columns) ** 0.5)
            torch._foreach_sub_(parameters, list(steps.view(-1, *shape)))
        return loss

    def nesterov_momenta(self, parameters: list[Tensor], skip: Tensor | None) -> Tensor:
        """Update the momenta of N parameters of one shape, and return (N, *shape) directions."""
        for parameter in parameters:
            if 'momentum' not in self.state[parameter]:
                self.state[parameter]['momentum'] = torch.zeros_like(parameter)
        momenta = [self.state[parameter]['momentum'] for parameter in parameters]
        gradients = torch.stack([parameter.grad for parameter in parameters])
        if getattr(self, 'grad_scale', None) is not None:
            gradients = gradients / self.grad_scale
        if skip is not None:
            gradients = torch.where(skip == 0, gradients, torch.stack(momenta))
        torch._foreach_lerp_(momenta, list(gradients), 1 - self.momentum)
        return gradients.lerp(torch.stack(momenta), self.momentum)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Make the singular values of matrices about equal: from 0.7 to 1.2, lower for those near 0.

    Args:
        matrices: (N, rows, columns).
        steps: Of the Newton-Schulz iteration, at least 1; its coefficients are Jordan's. Defaults to 5.

    Returns:
        (N, rows, columns).
    """
    tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if tall else matrices
    wide = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if wide.is_cuda:  # where env_cfg.tf32 may round products, too coarsely for products of Gram matrices
        for _ in range(steps):
            wide = _polynomial(wide @ wide.mT) @ wide
    else:  # 40 % of the multiplications, where a 3x3 convolution is nine times as wide as high
        gram = wide @ wide.mT
        product = factor = _polynomial(gram)
        for _ in range(steps - 1):
            gram = factor @ gram @ factor
            factor = _polynomial(gram)
            product = factor @ product
        wide = product @ wide
    return wide.mT if tall else wide


def _polynomial(gram: Tensor) -> Tensor:
    """What an iteration multiplies matrices by: (N, rows, rows), of their Gram matrices (N, rows, rows)."""
    factor = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
    factor.diagonal(dim1=1, dim2=2).add_(3.4445)
    return factor
