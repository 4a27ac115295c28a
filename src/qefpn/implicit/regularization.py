"""Loss terms that keep an equilibrium easy to find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qefpn.implicit.checks import check_count, check_number
from qefpn.implicit.layout import State
from qefpn.implicit.problem import flat_problem, random_like


def jacobian_regularization(
    f: Callable[..., Any],
    z: State,
    args: tuple[Any, ...] = (),
    *,
    samples: int = 1,
    generator: torch.Generator | None = None,
) -> Tensor:
    """‖J_f(z)‖²_F / N, averaged over the batch, by Hutchinson's estimate E‖εᵀJ_f‖² with ε ~ N(0, I)
    (Bai, Koltun and Kolter, Stabilizing Equilibrium Models by Jacobian Regularization, ICML 2021).

    Gradients reach ``args`` and whatever f closes over, not z: one evaluation of f, a vector-Jacobian product a
    sample of ε, and their second derivative in backward.

    Args:
        f: maps a state (B, ...) or a tuple of such, and ``args``, to a state of the same shapes.
        z: where the Jacobian is taken: the fixed point.
        args: passed on to f.
        samples: draws of ε (≥ 1); the estimate is their mean.
        generator: draws ε; None: torch's default generator.

    Returns:
        A scalar ≥ 0. N is the number of elements of a sample's state, so that the value does not grow with it.
    """
    check_count("jacobian_regularization", "samples", samples)
    differentiable = torch.is_grad_enabled()
    problem, point = flat_problem(f, z, args)
    with torch.autocast(point.device.type, enabled=False), torch.enable_grad():
        leaf = point.detach().requires_grad_()
        value = problem(leaf)
        if not value.requires_grad:
            return point.new_zeros(())
        total = point.new_zeros(())
        for number in range(samples):
            (product,) = torch.autograd.grad(
                value,
                leaf,
                random_like(point, generator),
                create_graph=differentiable,
                retain_graph=differentiable or number + 1 < samples,
                allow_unused=True,
            )
            if product is not None:
                total = total + product.square().sum()
        return total / (samples * point.numel())


def fixed_point_correction(losses: Sequence[Tensor], gamma: float = 0.8) -> Tensor:
    """Σₖ γ^(K−k) Lₖ over the losses of K intermediate iterates, first to last (Bai et al., Deep Equilibrium Optical
    Flow Estimation, CVPR 2022): iterates on the way are to be good answers too, so that fewer steps do.

    Args:
        losses: scalars, one an entry of ``Solution.intermediate``, in its order.
        gamma: in (0, 1].

    Raises:
        ValueError: no losses, or ``gamma`` out of range.
    """
    check_number("fixed_point_correction", "gamma", gamma, low=0.0, high=1.0, open_low=True)
    if not losses:
        raise ValueError("fixed_point_correction needs the loss of at least one intermediate state")
    count = len(losses)
    weights = [gamma ** (count - number) for number in range(1, count + 1)]
    return torch.stack([weight * loss for weight, loss in zip(weights, losses, strict=True)]).sum()
