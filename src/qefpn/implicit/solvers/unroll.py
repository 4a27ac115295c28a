"""A fixed number of weight-tied layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qefpn.implicit.problem import FlatMap
from qefpn.implicit.solvers.base import SOLVERS, Solver, SolveResult, Tracker, norms


@SOLVERS.register("unroll")
@dataclass(frozen=True)
class Unroll(Solver):
    """z ← F(z), ``max_steps`` times: exactly that many evaluations, and the last value is the answer.

    No evaluation is spent on the residual of the answer: the statistics hold ‖zₖ − zₖ₋₁‖, which is the
    residual of the last iterate that was evaluated.

    Args:
        max_steps: applications of F (≥ 1).
        rtol: 0 (the default) with ``atol`` 0 takes every step; otherwise a sample stops at F(z) once
            ‖F(z) − z‖ ≤ atol + rtol·‖F(z)‖.
        atol: see ``rtol``.
    """

    max_steps: int = 5
    rtol: float = 0.0
    atol: float = 0.0

    unrolls: ClassVar[bool] = True

    def solve(
        self,
        f: FlatMap,
        z: Tensor,
        *,
        fz: Tensor | None = None,
        final: FlatMap | None = None,
        keep_inverse: bool = False,
    ) -> SolveResult:
        known = fz is not None
        tracker = Tracker(self, z, latest=True)
        for _ in range(self.max_steps):
            value = f(z) if fz is None else fz
            fz = None
            running = ~tracker.stopped
            done = tracker.update(z, norms(value.detach() - z.detach()), norms(value))
            if tracker.any_stopped:  # a sample whose value is not finite keeps its last iterate
                value = torch.where((running & tracker.finite)[:, None], value, z)
            z = value
            if done:
                break
        return SolveResult(z, tracker.finish(z, free=int(known)))
