"""torchdeq 0.1.0 in the place of our solvers: the iterates of its solvers, and a pyramid solved by it."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchdeq import get_deq
    from torchdeq.solver.anderson import anderson_solver
    from torchdeq.solver.broyden import broyden_solver

__all__ = ["TorchdeqPyramid", "anderson_solver", "broyden_solver"]


class TorchdeqPyramid(nn.Module):
    """A drop-in for ``qefpn.models.ImplicitPyramid``: the same f_theta, solved and differentiated by torchdeq.

    Args:
        transformation: f_theta.
        steps: Broyden steps of the forward solve and as many of the backward one.
        hook: differentiate by a tensor hook (one evaluation of f less) in place of the library's default.
    """

    def __init__(self, transformation: nn.Module, steps: int, *, hook: bool = False) -> None:
        super().__init__()
        self.transformation = transformation
        self.deq = get_deq(
            core="indexing",
            f_solver="broyden",
            b_solver="broyden",
            f_max_iter=steps,
            b_max_iter=steps,
            f_tol=0.0,
            b_tol=0.0,
            ift=not hook,
            hook_ift=hook,
        )

    def forward(self, injection: tuple[Tensor, ...], **_: object) -> tuple[tuple[Tensor, ...], None]:
        """As ``ImplicitPyramid``, whose options mean nothing here."""

        def f(*state: Tensor) -> Any:
            return self.transformation(state, *injection)

        states, _ = self.deq(f, [torch.zeros_like(x) for x in injection])
        return tuple(states[-1]), None
