"""The pyramid between fusion and decoder: the equilibrium of f_theta, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from qefpn.implicit import (
    Equilibrium,
    QuasiEquilibrium,
    Solution,
    Unroll,
    UnrolledAdjoint,
    fixed_point,
    jacobian_regularization,
    spectral_radius,
)
from qefpn.models.layers import as_float
from qefpn.models.transformation import Transformation

DIFFERENCE = 2**-8
"""h of the quasi residual's derivative: within 1e-4 of the exact one, at 1.3 times the price of a plain solve."""


class ImplicitPyramid(nn.Module):
    """z* = f_theta(z*; x), found by a root solver, from z = 0 unless told otherwise (paper, Eq. 2–10).

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
        self,
        injection: tuple[Tensor, ...],
        *,
        keys: Tensor | None = None,
        unroll: int | None = None,
        start: Sequence[Tensor] | None = None,
        intermediate: int = 0,
    ) -> tuple[tuple[Tensor, ...], Solution | None]:
        """Solve, or unroll a few layers with plain autograd.

        Args:
            injection: fused features, a level each, (B, C, Hi, Wi).
            keys: one int64 key a sample for the residual's masks (see ``qefpn.implicit.fixed_point``).
            unroll: number of weight-tied layers; ``None`` solves.
            start: where the solve starts, shaped like ``injection``: the state of the former frame of a video.
                Where its shapes differ (the size of the frames has changed) the start is zero.
            intermediate: iterates to hand out in ``Solution.intermediate``, evenly spread over the solver's steps.

        Returns:
            The state, shaped like ``injection``, and the solution. float32 also under autocast: half precision
            cannot reach the solver's tolerances and has no forward derivative.
        """
        with torch.autocast(injection[0].device.type, enabled=False), self.transformation.weights_kept():
            injection = tuple(as_float(x) for x in injection)
            state: tuple[Tensor, ...] = tuple(torch.zeros_like(x) for x in injection)
            f = self.transformation
            if unroll is not None:
                solution = fixed_point(
                    f, state, injection, solver=Unroll(unroll), residual=Equilibrium(), adjoint=UnrolledAdjoint()
                )
                return tuple(solution.value), solution
            residual = self._residual() if self.training or self.residual_in_eval else Equilibrium()
            solution = fixed_point(
                f,
                _started(state, start),
                injection,
                solver=self.solver,
                residual=residual,
                adjoint=self.adjoint,
                keys=keys,
                intermediate=_spread(intermediate, self.solver.max_steps),
                compact=True,
            )
        return tuple(solution.value), solution

    def _residual(self) -> Any:
        """The residual, whose derivative is taken by a difference where it leaves that open: of a layer that rounds to
        bfloat16 inside, a difference would be of its rounding."""
        own = self.residual
        if not isinstance(own, QuasiEquilibrium) or own.difference is not None:
            return own
        rounds = any(block.half_precision for block in self.transformation.blocks)
        return replace(own, difference=0.0 if rounds else DIFFERENCE)

    def jacobian_regularization(self, state: Sequence[Tensor], injection: Sequence[Tensor], samples: int = 1) -> Tensor:
        """The loss term of :func:`qefpn.implicit.jacobian_regularization` at ``state``."""
        given = tuple(as_float(x) for x in injection)
        z = tuple(as_float(x.detach()) for x in state)
        with self.transformation.weights_kept():
            return jacobian_regularization(self.transformation, z, given, samples=samples)

    def spectral_radius(self, state: Sequence[Tensor], injection: Sequence[Tensor], iterations: int = 20) -> Tensor:
        """(B,) spectral radius of f_theta's Jacobian at ``state``; leaves torch's generator as it is."""
        generator = torch.Generator().manual_seed(0)
        given = tuple(as_float(x.detach()) for x in injection)
        z = tuple(as_float(x.detach()) for x in state)
        with torch.no_grad(), self.transformation.weights_kept():
            return spectral_radius(self.transformation, z, given, iterations=iterations, generator=generator)


def _started(zero: tuple[Tensor, ...], start: Sequence[Tensor] | None) -> tuple[Tensor, ...]:
    if start is None or [x.shape for x in start] != [x.shape for x in zero]:
        return zero
    return tuple(torch.empty_like(like).copy_(as_float(x.detach())) for x, like in zip(start, zero, strict=True))


def _spread(count: int, steps: int) -> list[int]:
    """``count`` numbers of iterates between the first and the last of ``steps``."""
    return sorted({max(1, round(steps * number / (count + 1))) for number in range(1, count + 1)})


class PlainPyramid(nn.Module):
    """No pyramid: the fused features go to the decoder as they are (the ablation's baseline)."""

    def forward(
        self,
        injection: tuple[Tensor, ...],
        *,
        keys: Tensor | None = None,
        unroll: int | None = None,
        start: Sequence[Tensor] | None = None,
        intermediate: int = 0,
    ) -> tuple[tuple[Tensor, ...], None]:
        """``injection`` itself; the other arguments are accepted and mean nothing here."""
        return injection, None
