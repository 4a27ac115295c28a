"""Plain iterations, which autograd can run through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from qefpn.implicit.checks import check_number
from qefpn.implicit.solvers.base import SOLVERS, Solver


@SOLVERS.register("fixed_point")
@dataclass(frozen=True)
class FixedPointIteration(Solver):
    """z ← damping·F(z) + (1 − damping)·z.

    Args:
        max_steps, rtol, atol: as of every :class:`Solver`; ``steps + 1`` evaluations.
        damping: in (0, 1]; 1 is the plain iteration.
    """

    damping: float = 1.0

    unrolls: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("FixedPointIteration", "damping", self.damping, low=0.0, high=1.0, open_low=True)

    def step(self, state: Any, z: Tensor, value: Tensor, settled: Tensor) -> Tensor:
        return torch.lerp(z, value, self.damping)


@SOLVERS.register("unroll")
@dataclass(frozen=True)
class Unroll(Solver):
    """A fixed number of weight-tied layers: z ← F(z), ``max_steps`` times. Exactly that many evaluations, and the last
    value is the answer.

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

    latest: ClassVar[bool] = True
    unrolls: ClassVar[bool] = True

    def step(self, state: Any, z: Tensor, value: Tensor, settled: Tensor) -> Tensor:
        return value
