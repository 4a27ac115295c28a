"""The damped fixed-point iteration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qefpn.implicit.checks import check_number
from qefpn.implicit.problem import FlatMap
from qefpn.implicit.solvers.base import SOLVERS, Solver, SolveResult, Tracker, norms


@SOLVERS.register("fixed_point")
@dataclass(frozen=True)
class FixedPointIteration(Solver):
    """z ← damping·F(z) + (1 − damping)·z.

    Args:
        max_steps: updates of the iterate, at most (≥ 1); ``steps + 1`` evaluations.
        rtol: a sample stops where ‖g(z)‖ ≤ atol + rtol·‖F(z)‖.
        atol: see ``rtol``. With both 0 every step is taken.
        damping: in (0, 1]; 1 is the plain iteration.
    """

    damping: float = 1.0

    unrolls: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("FixedPointIteration", "damping", self.damping, low=0.0, high=1.0, open_low=True)

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
        tracker = Tracker(self, z, candidate=not known)
        if fz is None:
            fz = f(z)
        for step in range(self.max_steps + 1):
            if tracker.update(z, norms(fz.detach() - z.detach()), norms(fz)) or step == self.max_steps:
                break
            z = tracker.freeze(torch.lerp(z, fz, self.damping))
            fz = f(z) if final is None or step + 1 < self.max_steps else final(z)
        return SolveResult(tracker.best, tracker.finish(tracker.best, free=int(known)))
