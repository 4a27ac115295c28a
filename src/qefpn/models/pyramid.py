"""The pyramid between fusion and decoder: the equilibrium of f_theta, or nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from qefpn.implicit import Equilibrium, Solution, fixed_point
from qefpn.models.layers import as_float
from qefpn.models.transformation import Transformation


class ImplicitPyramid(nn.Module):
    """z* = f_theta(z*; x), found by a root solver from z = 0 (paper, Eq. 2–10).

    Args:
        transformation: f_theta.
        solver: root solver of the forward pass.
        residual: what is driven to zero in training.
        adjoint: how gradients pass the equilibrium.
        residual_in_eval: keep ``residual`` in evaluation. By default evaluation solves Eq. 3, so that a
            prediction is deterministic and independent of what else is in its batch.
    """

    def __init__(
        self,
        transformation: Transformation,
        solver: Any,
        residual: Any,
        adjoint: Any,
        *,
        residual_in_eval: bool = False,
    ) -> None:
        super().__init__()
        self.transformation = transformation
        self.solver = solver
        self.residual = residual
        self.adjoint = adjoint
        self.residual_in_eval = residual_in_eval

    def forward(
        self, injection: tuple[Tensor, ...], *, keys: Tensor | None = None, unroll: int | None = None
    ) -> tuple[tuple[Tensor, ...], Solution | None]:
        """Solve, or unroll a few layers with plain autograd.

        Args:
            injection: fused features, a level each, (B, C, Hi, Wi).
            keys: one int64 key a sample for the residual's masks (see ``qefpn.implicit.fixed_point``).
            unroll: number of weight-tied layers; ``None`` solves.

        Returns:
            The state, shaped like ``injection``, and the solution (``None`` if unrolled). float32 also under
            autocast: half precision cannot reach the solver's tolerances and has no forward derivative.
        """
        with torch.autocast(injection[0].device.type, enabled=False):
            injection = tuple(as_float(x) for x in injection)
            state: tuple[Tensor, ...] = tuple(torch.zeros_like(x) for x in injection)
            if unroll is not None:
                for _ in range(unroll):
                    state = self.transformation(state, *injection)
                return state, None
            residual = self.residual if self.training or self.residual_in_eval else Equilibrium()
            solution = fixed_point(
                self.transformation,
                state,
                injection,
                solver=self.solver,
                residual=residual,
                adjoint=self.adjoint,
                keys=keys,
            )
        return tuple(solution.value), solution


class PlainPyramid(nn.Module):
    """No pyramid: the fused features go to the decoder as they are (the ablation's baseline)."""

    def forward(
        self, injection: tuple[Tensor, ...], *, keys: Tensor | None = None, unroll: int | None = None
    ) -> tuple[tuple[Tensor, ...], None]:
        """``injection`` itself; ``keys`` and ``unroll`` are accepted and mean nothing here."""
        return injection, None
